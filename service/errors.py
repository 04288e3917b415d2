"""Errors of the service; each that reaches a client has one code, status and title.

ServiceError
├── SettingsError                   the process does not start
└── RequestError                    answered as problem+json
    ├── InvalidParameterError       422 invalid_parameter
    │   ├── UnknownClassError       422 unknown_class
    │   └── TooManyImagesError      422 n_too_large
    ├── BadRequestError             400 bad_request
    ├── UnauthorizedError           401 unauthorized
    ├── ForbiddenError              403 forbidden
    ├── NotFoundError               404 not_found
    ├── MethodNotAllowedError       405 method_not_allowed
    ├── NotAcceptableError          406 not_acceptable
    ├── JobNotFinishedError         409 job_not_finished
    ├── JobUnsuccessfulError        409 job_unsuccessful
    ├── JobFinishedError            409 job_finished
    ├── JobNotRetryableError        409 job_not_retryable
    ├── IdempotencyConflictError    409 idempotency_conflict
    ├── ReferenceMissingError       409 reference_missing
    ├── ResultNotReadyError         409 result_not_ready
    ├── QualityGateError            409 quality_gate_failed
    ├── ResultExpiredError          410 gone
    ├── PreconditionFailedError     412 precondition_failed
    ├── BodyTooLargeError           413 body_too_large
    ├── UriTooLongError             414 uri_too_long
    ├── MediaTypeError              415 unsupported_media_type
    ├── RangeNotSatisfiableError    416 range_not_satisfiable
    ├── IdempotencyMismatchError    422 idempotency_mismatch
    ├── AdmissionError              counted in masan_admission_rejections_total
    │   ├── RateLimitedError        429 rate_limited
    │   ├── QuotaExceededError      429 quota_exceeded
    │   ├── TooManyJobsError        429 too_many_jobs
    │   ├── DrainingError           503 draining
    │   ├── OverloadedError         503 overloaded
    │   ├── QueueFullError          503 queue_full
    │   ├── NoWorkerError           503 no_worker
    │   └── StoreFullError          507 store_full
    ├── HeadersTooLargeError        431 headers_too_large
    ├── ModelUnusableError          500 model_unusable
    ├── ResultLostError             500 result_lost
    ├── RedrawFailedError           500 redraw_failed
    ├── InternalError               500 internal
    ├── TooManyStreamsError         503 too_many_streams
    ├── NotReadyError               503 not_ready
    ├── QueueUnavailableError       503 queue_unavailable
    └── RedrawTimeoutError          504 redraw_timeout
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request: which parameter, why, and what would be right."""

    name: str
    reason: str
    allowed: str | list[str] | None = None


class ServiceError(Exception):
    """Root of everything the service raises."""


class SettingsError(ServiceError):
    """An environment variable keeps the process from starting."""

    def __init__(self, variable: str, reason: str) -> None:
        self.variable = variable
        self.reason = reason
        super().__init__(f"{variable} {reason}")


class RequestError(ServiceError):
    """A request that is answered with a problem document.

    detail: what happened to this request. retry_after_s: when trying again makes sense, in seconds.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(
        self,
        detail: str,
        *,
        errors: Iterable[FieldError] = (),
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        super().__init__(detail)


class InvalidParameterError(RequestError):
    code, status, title = "invalid_parameter", 422, "A parameter is not acceptable"

    @classmethod
    def of(cls, *fields: FieldError) -> Self:
        """The detail says of each field what is wrong with it."""
        return cls("; ".join(f"{field.name}: {field.reason}" for field in fields), errors=fields)


class UnknownClassError(InvalidParameterError):
    code, title = "unknown_class", "The checkpoint has no such class"


class TooManyImagesError(InvalidParameterError):
    code, title = "n_too_large", "Too many images for one job"


class BadRequestError(RequestError):
    code, status, title = "bad_request", 400, "The request cannot be understood"


class UnauthorizedError(RequestError):
    code, status, title = "unauthorized", 401, "A valid API key is needed"


class ForbiddenError(RequestError):
    code, status, title = "forbidden", 403, "This request is not allowed"


class NotFoundError(RequestError):
    code, status, title = "not_found", 404, "There is no such thing"


class MethodNotAllowedError(RequestError):
    code, status, title = "method_not_allowed", 405, "This resource does not know that method"


class NotAcceptableError(RequestError):
    code, status, title = "not_acceptable", 406, "There is no such representation"


class JobNotFinishedError(RequestError):
    code, status, title = "job_not_finished", 409, "The job is not finished"


class JobUnsuccessfulError(RequestError):
    code, status, title = "job_unsuccessful", 409, "The job ended without a complete result"


class JobFinishedError(RequestError):
    code, status, title = "job_finished", 409, "The job is finished already"


class JobNotRetryableError(RequestError):
    code, status, title = "job_not_retryable", 409, "The job cannot be retried"


class IdempotencyConflictError(RequestError):
    code, status, title = "idempotency_conflict", 409, "The same request is being answered"


class ReferenceMissingError(RequestError):
    code, status, title = "reference_missing", 409, "There is nothing to judge the checkpoint against"


class QualityGateError(RequestError):
    code, status, title = "quality_gate_failed", 409, "The checkpoint is worse than the one it would replace"


class ResultNotReadyError(RequestError):
    code, status, title = "result_not_ready", 409, "The archive is being made"


class ResultExpiredError(RequestError):
    code, status, title = "gone", 410, "The job's images have expired"


class BodyTooLargeError(RequestError):
    code, status, title = "body_too_large", 413, "The request's body is too large"


class PreconditionFailedError(RequestError):
    code, status, title = "precondition_failed", 412, "The resource is not what the request expects"


class UriTooLongError(RequestError):
    code, status, title = "uri_too_long", 414, "The path or the query is too long"


class MediaTypeError(RequestError):
    code, status, title = "unsupported_media_type", 415, "Files of this type are not taken"


class RangeNotSatisfiableError(RequestError):
    code, status, title = "range_not_satisfiable", 416, "The archive has no such bytes"


class AdmissionError(RequestError):
    """Refused for now, not for what it asks. reason: its label in masan_admission_rejections_total."""

    reason: ClassVar[str]


class RateLimitedError(AdmissionError):
    code, status, title = "rate_limited", 429, "Too many requests with this key"
    reason = "rate_limited"


class QuotaExceededError(AdmissionError):
    code, status, title = "quota_exceeded", 429, "The key's images for today are used up"
    reason = "quota"


class TooManyJobsError(AdmissionError):
    code, status, title = "too_many_jobs", 429, "Too many jobs of this key are under way"
    reason = "active_jobs"


class DrainingError(AdmissionError):
    code, status, title = "draining", 503, "No new jobs are accepted for now"
    reason = "draining"


class StoreFullError(AdmissionError):
    code, status, title = "store_full", 507, "The result store has no room for the job"
    reason = "store_full"


class OverloadedError(AdmissionError):
    code, status, title = "overloaded", 503, "Too many requests are being answered"
    reason = "overloaded"


class QueueFullError(AdmissionError):
    code, status, title = "queue_full", 503, "The queue is full"
    reason = "queue_full"


class NoWorkerError(AdmissionError):
    code, status, title = "no_worker", 503, "No worker is running"
    reason = "no_worker"


class HeadersTooLargeError(RequestError):
    code, status, title = "headers_too_large", 431, "The request's headers are too large"


class IdempotencyMismatchError(RequestError):
    code, status, title = "idempotency_mismatch", 422, "The key was used for another request"


class ModelUnusableError(RequestError):
    code, status, title = "model_unusable", 500, "The checkpoint is damaged"


class ResultLostError(RequestError):
    code, status, title = "result_lost", 500, "Files of the job are missing or damaged"


class RedrawFailedError(RequestError):
    code, status, title = "redraw_failed", 500, "The image could not be drawn again"


class InternalError(RequestError):
    code, status, title = "internal", 500, "The service made a mistake"


class TooManyStreamsError(RequestError):
    code, status, title = "too_many_streams", 503, "Too many event streams are open"


class NotReadyError(RequestError):
    code, status, title = "not_ready", 503, "The service is not ready"


class QueueUnavailableError(RequestError):
    code, status, title = "queue_unavailable", 503, "The queue cannot be reached"


class RedrawTimeoutError(RequestError):
    code, status, title = "redraw_timeout", 504, "The image was not drawn in time"


def admission_reasons() -> tuple[str, ...]:
    """Every reason for which a request is refused for now."""
    return tuple(sorted(e.reason for e in request_errors().values() if issubclass(e, AdmissionError)))


def request_errors() -> dict[str, type[RequestError]]:
    """Every error a client can get, by code."""
    found: dict[str, type[RequestError]] = {}
    pending = list(RequestError.__subclasses__())
    while pending:
        error = pending.pop()
        if "code" in vars(error):
            found[error.code] = error
        pending.extend(error.__subclasses__())
    return found
