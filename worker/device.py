"""The device that draws: which one, what it is called, and which of its errors mean what."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from worker.errors import GenerationError, GpuLostError, GpuMemoryError, NonFiniteImageError

_T = TypeVar("_T")


def choose_device(name: str) -> torch.device:
    """name: auto, cpu, cuda or cuda:N. Raises ValueError for a GPU that is not there."""
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"{name!r}: torch sees {count} GPUs here")
    return device


def device_label(device: torch.device) -> str:
    """What the manifest of an image says of the device: its type, and the model of a GPU."""
    return "cpu" if device.type == "cpu" else f"{device.type} ({torch.cuda.get_device_name(device)})"


@contextmanager
def device_errors() -> Iterator[None]:
    """Turns what torch raises in a forward pass into errors of ours.

    Raises NonFiniteImageError, GpuMemoryError, GpuLostError, GenerationError.
    """
    try:
        yield
    except FloatingPointError as error:
        raise NonFiniteImageError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise GpuMemoryError("the GPU's memory does not hold one forward pass") from error
    except torch.AcceleratorError as error:
        raise GpuLostError("the GPU failed; the worker starts anew") from error
    except RuntimeError as error:
        raise GenerationError(f"the forward pass failed: {error}") from error


def retry_once_out_of_memory(run: Callable[[], _T], on_out_of_memory: Callable[[], None]) -> _T:
    """Run again after the cached memory was given back.

    The micro-batch is not made smaller: its size decides the last bits of an image.
    """
    try:
        return run()
    except torch.OutOfMemoryError:
        on_out_of_memory()
        torch.cuda.empty_cache()
    return run()  # outside the handler, whose traceback would keep the failed pass's tensors alive
