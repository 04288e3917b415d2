import inspect

import pytest
from rq.exceptions import AbandonedJobError
from rq.timeouts import JobTimeoutException

import model_store.errors
import worker.errors
from model_store.errors import ModelStoreError, WeightsCorruptedError
from worker.contract.failures import failure_of
from worker.contract.messages import FailureCode
from worker.errors import RequestInvalidError, StoreUnavailableError, WorkerError


def _tree(root: type[Exception], module: object) -> list[type[Exception]]:
    return [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, root) and found is not root
    ]


@pytest.mark.parametrize("error_type", _tree(WorkerError, worker.errors))
def test_every_worker_error_has_a_code_of_its_own(error_type: type[WorkerError]) -> None:
    others = [other for other in _tree(WorkerError, worker.errors) if other is not error_type]

    assert error_type.failure_code is not FailureCode.INTERNAL
    assert error_type.failure_code not in {getattr(other, "failure_code", None) for other in others}


@pytest.mark.parametrize("error_type", _tree(ModelStoreError, model_store.errors))
def test_every_error_a_loading_model_store_raises_has_a_code(error_type: type[Exception]) -> None:
    error = error_type.__new__(error_type)

    is_for_publishers = error_type.__name__ == "ModelAlreadyPublishedError"
    assert (failure_of(error).code is FailureCode.INTERNAL) is is_for_publishers


def test_the_message_of_a_known_error_leaves_the_worker() -> None:
    failure = failure_of(WeightsCorruptedError("tiny/weights", "sha256 differs"))

    assert failure == (FailureCode.WEIGHTS_CORRUPTED, "weights tiny/weights: sha256 differs")


def test_the_message_of_an_unexpected_error_does_not() -> None:
    failure = failure_of(KeyError("a secret"))

    assert failure.code is FailureCode.INTERNAL
    assert "secret" not in failure.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobTimeoutException(), FailureCode.TIMEOUT),
        (AbandonedJobError(), FailureCode.WORKER_LOST),
        (RequestInvalidError("seed", "is negative"), FailureCode.REQUEST_INVALID),
        (StoreUnavailableError("result store", "disk full"), FailureCode.STORE_UNAVAILABLE),
    ],
)
def test_codes(error: Exception, code: FailureCode) -> None:
    failure = failure_of(error)

    assert failure.code is code
    assert failure.message
