"""What of an exception leaves the worker: a code and a message, never the exception itself. Torch-free."""

from typing import Final, NamedTuple

from rq.exceptions import AbandonedJobError
from rq.timeouts import JobTimeoutException

from model_store.errors import (
    ArchitectureUnsupportedError,
    ManifestInvalidError,
    ModelNotFoundError,
    ModelStoreError,
    WeightsCorruptedError,
)
from worker.contract.messages import FailureCode

_UNEXPECTED: Final = "An unexpected error; the worker's log has the details."
_LOST: Final = "The worker stopped while it made these images."
_TIMEOUT: Final = "The images took longer than one chunk may take."

_STORE_CODES: Final[dict[type[Exception], FailureCode]] = {
    ModelNotFoundError: FailureCode.MODEL_NOT_FOUND,
    ManifestInvalidError: FailureCode.MANIFEST_INVALID,
    ArchitectureUnsupportedError: FailureCode.ARCHITECTURE_UNSUPPORTED,
    WeightsCorruptedError: FailureCode.WEIGHTS_CORRUPTED,
}


class Failure(NamedTuple):
    """Stored in the job record and in the chunk's RQ metadata."""

    code: FailureCode
    message: str


def failure_of(error: BaseException) -> Failure:
    """What to tell of an exception. A worker error carries its code itself, as `failure_code`."""
    code = getattr(error, "failure_code", None)
    if isinstance(code, FailureCode):
        return Failure(code, str(error))
    for error_type, store_code in _STORE_CODES.items():
        if isinstance(error, error_type):
            return Failure(store_code, str(error))
    if isinstance(error, ModelStoreError):
        return Failure(FailureCode.INTERNAL, str(error))
    if isinstance(error, JobTimeoutException):
        return Failure(FailureCode.TIMEOUT, _TIMEOUT)
    if isinstance(error, AbandonedJobError):
        return Failure(FailureCode.WORKER_LOST, _LOST)
    return Failure(FailureCode.INTERNAL, _UNEXPECTED)
