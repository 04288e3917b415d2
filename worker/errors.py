"""Errors of the worker. Each carries the code under which it leaves the process.

WorkerError
├── RequestInvalidError      a chunk that cannot be made; never retried
├── GenerationError          the forward pass failed
│   └── NonFiniteImageError  it gave pixels that are not finite
├── GateExhaustedError       the gate refused every attempt at an image; never retried
├── GpuMemoryError           out of GPU memory, also after freeing what could be freed
├── GpuLostError             the device is unusable; the chunk fails, then the process exits
└── StoreUnavailableError    a store could not be read or written
    └── StoreFullError       there is no room left in it
"""

from collections.abc import Mapping
from typing import ClassVar

from worker.contract.messages import FailureCode, RejectionReason


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


class GateExhaustedError(WorkerError):
    """The gate refused as many attempts at one image as it may; `reasons` counts why."""

    failure_code = FailureCode.GATE_EXHAUSTED

    def __init__(self, class_slug: str, index: int, reasons: Mapping[RejectionReason, int]) -> None:
        self.class_slug = class_slug
        self.index = index
        self.reasons = dict(reasons)
        why = ", ".join(f"{reason.value} {count}" for reason, count in sorted(reasons.items()))
        super().__init__(
            f"{class_slug} image {index}: the gate refused all {sum(reasons.values())} attempts ({why});"
            " ask with another seed or a looser gate"
        )


class GpuMemoryError(WorkerError):
    """The device's memory does not hold one forward pass."""

    failure_code = FailureCode.GPU_MEMORY


class GpuLostError(WorkerError):
    """The device failed; only a new process can use it again."""

    failure_code = FailureCode.GPU_LOST


class StoreUnavailableError(WorkerError):
    """The model store or the result store could not be reached."""

    failure_code = FailureCode.STORE_UNAVAILABLE
    state: ClassVar[str] = "unavailable"

    def __init__(self, store: str, reason: str) -> None:
        self.store = store
        self.reason = reason
        super().__init__(f"the {store} is {self.state}: {reason}")


class StoreFullError(StoreUnavailableError):
    """There is no room left for what was to be written."""

    failure_code = FailureCode.STORE_FULL
    state = "full"
