"""Errors of the worker. Each carries the code under which it leaves the process.

WorkerError
├── RequestInvalidError      a chunk that cannot be made; never retried
├── GenerationError          the forward pass failed
│   └── NonFiniteImageError  it gave pixels that are not finite
├── GpuMemoryError           out of GPU memory, also after freeing what could be freed
├── GpuLostError             the device is unusable; the chunk fails, then the process exits
└── StoreUnavailableError    a store could not be read or written
"""

from typing import ClassVar

from worker.contract.messages import FailureCode


class WorkerError(Exception):
    """Root of everything the worker raises."""

    failure_code: ClassVar[FailureCode] = FailureCode.INTERNAL


class RequestInvalidError(WorkerError):
    """The chunk asks for what cannot be; `field` names what is wrong."""

    failure_code = FailureCode.REQUEST_INVALID

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


class GenerationError(WorkerError):
    """The generator could not draw the images."""

    failure_code = FailureCode.GENERATION_FAILED


class NonFiniteImageError(GenerationError):
    """The generator drew pixels that are not finite."""

    failure_code = FailureCode.NON_FINITE_IMAGE


class GpuMemoryError(WorkerError):
    """The device's memory does not hold one forward pass."""

    failure_code = FailureCode.GPU_MEMORY


class GpuLostError(WorkerError):
    """The device failed; only a new process can use it again."""

    failure_code = FailureCode.GPU_LOST


class StoreUnavailableError(WorkerError):
    """The model store or the result store could not be reached."""

    failure_code = FailureCode.STORE_UNAVAILABLE

    def __init__(self, store: str, reason: str) -> None:
        self.store = store
        self.reason = reason
        super().__init__(f"the {store} is unavailable: {reason}")
