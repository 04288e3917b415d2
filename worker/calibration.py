"""How many forward passes pay at once on this machine: measured at start, as nothing else can know it.

Cores that are shared with others, virtual or under a quota do not show as such; passes on too many of them
slow one another down. What is measured decides no byte of an image, each pass being one thread's work.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F

from worker.settings import usable_cores

logger = logging.getLogger(__name__)

AS_FAST: Final = 0.9
"""More passes are preferred as long as they draw this share of the best speed: it was measured in a moment in
which others may have been at work, and idle passes cost little."""
_TOTAL_S: Final = 1.6
_ROUNDS: Final = 2
_CHANNELS: Final = 32
_SIDE: Final = 64


def passes_at_once(device: torch.device, cores: int | None = None) -> int:
    """1 on a GPU; on a CPU as many as do not slow one another down. Takes less than two seconds."""
    cores = cores or usable_cores()
    if device.type != "cpu" or cores == 1:
        return 1
    candidates = doublings(cores)
    speeds = dict.fromkeys(candidates, 0.0)
    seconds = _TOTAL_S / (_ROUNDS * len(candidates))
    work = _convolution()
    for _ in range(_ROUNDS):  # in turns, so that what else runs meets all of them
        for count in candidates:
            speeds[count] = max(speeds[count], rate(work, count, seconds))
    chosen = best(candidates, [speeds[count] for count in candidates])
    logger.info(
        "threads measured",
        extra={"threads": chosen, "speeds": {str(n): round(s / speeds[1], 2) for n, s in speeds.items()}},
    )
    return chosen


def doublings(cores: int) -> list[int]:
    """1, 2, 4 ... and `cores` itself."""
    return [*(2**i for i in range(cores.bit_length()) if 2**i < cores), cores]


def best(counts: Sequence[int], speeds: Sequence[float]) -> int:
    """The largest count that is as fast as the fastest, within AS_FAST."""
    enough = AS_FAST * max(speeds)
    return max(count for count, speed in zip(counts, speeds, strict=True) if speed >= enough)


def rate(work: Callable[[], object], count: int, seconds: float) -> float:
    """Runs of `work` a second, `count` at a time, begun within `seconds`."""
    done = [0] * count
    start = time.perf_counter()

    def repeat(at: int) -> None:
        while time.perf_counter() - start < seconds:
            work()
            done[at] += 1

    threads = [threading.Thread(target=repeat, args=(at,), name="calibrate") for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def _convolution() -> Callable[[], object]:
    """About a millisecond of what a generator does most."""
    x = torch.zeros(1, _CHANNELS, _SIDE, _SIDE)
    kernel = torch.zeros(_CHANNELS, _CHANNELS, 3, 3)

    def run() -> None:
        with torch.inference_mode():
            F.conv2d(x, kernel, padding=1)

    return run
