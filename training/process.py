"""What training needs of its process: settings for a CPU, and to be told when to stop."""

import ctypes
import ctypes.util
import signal
import sys
from types import FrameType
from typing import Any, Final

import torch

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_MAX: Final = -4


def prepare_process(threads: int | None) -> None:
    """Call once, before the first parallel work: threads started later inherit the settings.

    threads: OpenMP threads, None for torch's choice. Denormal numbers, which vanishing gradients are full of,
    are flushed to zero; a saturated discriminator's backward was ten times slower with them.
    """
    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep freed activations instead of returning them to the kernel.

    Otherwise each step maps and unmaps gigabytes and spends more time in page faults than in arithmetic:
    measured 2.5 times slower on two cores. Does nothing with another C library.
    """
    if not sys.platform.startswith("linux"):
        return
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 2**28)


class StopSignals:
    """SIGTERM and Ctrl-C ask the loop to finish its step, save and return."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.received = True
