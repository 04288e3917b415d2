"""What a device does best: a short measurement decides between precisions and memory layouts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, Final, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F

from training.config import RunConfig, TrainConfig
from training.ranks import Ranks

Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["contiguous", "channels_last"]

MEMORY_FORMATS: Final[dict[str, torch.memory_format]] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
_SECONDS_PER_CHOICE: Final = 0.1
_SIDE: Final = 64
_TOLERANCE: Final = 1.03
"""A choice must be this much faster than the plainer one before it; below, timing decides by chance."""


@dataclass(frozen=True)
class Choice:
    """A precision and a memory layout, and what a 3x3 convolution with its backward reached in them."""

    precision: Precision
    memory_format: MemoryFormat
    flops_per_second: float


def fit_to_device(config: TrainConfig, device: torch.device, ranks: Ranks | None = None) -> TrainConfig:
    """The configuration with every `auto` decided, the same on all ranks."""
    if "auto" not in (config.run.precision, config.run.memory_format):
        return config
    best = fastest(measure(config, device))
    if ranks is not None and ranks.size > 1:
        decided: list[Any] = [best]
        dist.broadcast_object_list(decided, device=device if device.type == "cuda" else None)
        best = decided[0]
    run = replace(config.run, precision=best.precision, memory_format=best.memory_format)
    return replace(config, run=run)


@cache
def fastest_on(device: torch.device) -> Choice:
    """What suits networks of middling width there; measured once a process."""
    run = RunConfig(precision="auto", memory_format="auto")
    return fastest(measure(TrainConfig(recipe="calibration", run=run), device))


def fastest(choices: list[Choice]) -> Choice:
    """The first choice that no later one beats by more than the tolerance of timing."""
    best = choices[0]
    for choice in choices[1:]:
        if choice.flops_per_second > _TOLERANCE * best.flops_per_second:
            best = choice
    return best


def measure(config: TrainConfig, device: torch.device) -> list[Choice]:
    """Time one of the generator's middle convolutions in every way that the configuration leaves open.

    Takes about a second. Plain choices come first.
    """
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    if config.run.precision != "auto":
        precisions = (config.run.precision,)
    formats: tuple[MemoryFormat, ...] = ("contiguous", "channels_last")
    if config.run.memory_format != "auto":
        formats = (config.run.memory_format,)
    width, batch = 4 * config.generator.base_channels, 32 if device.type == "cuda" else 2
    return [
        Choice(precision, memory_format, _convolution_rate(width, batch, device, precision, memory_format))
        for precision, memory_format in product(precisions, formats)
    ]


def _convolution_rate(
    width: int, batch: int, device: torch.device, precision: Precision, memory_format: MemoryFormat
) -> float:
    """FLOP/s of a 3x3 convolution and its backward on [batch, width, 64, 64]."""
    layout = MEMORY_FORMATS[memory_format]
    x = torch.zeros(batch, width, _SIDE, _SIDE, device=device).to(memory_format=layout).requires_grad_(True)
    weight = torch.zeros(width, width, 3, 3, device=device).to(memory_format=layout).requires_grad_(True)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            y = F.conv2d(x, weight, padding=1)
        y.backward(torch.zeros_like(y))

    flops = 3 * 2 * 9 * width * width * batch * _SIDE * _SIDE  # forward, and twice as much backward
    return flops / _best_time(run, device)


def _best_time(run: Callable[[], None], device: torch.device) -> float:
    """Seconds of the fastest of the runs that fit into the time, after one to warm up."""
    run()
    best, end = float("inf"), time.perf_counter() + _SECONDS_PER_CHOICE
    while time.perf_counter() < end:
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
