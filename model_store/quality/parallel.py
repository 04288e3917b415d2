"""Work done in parts, several at once: for networks and searches that take one core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(function: Callable[[Part], Result], parts: Iterable[Part], workers: int) -> Iterator[Result]:
    """`function` of every part, in the order of the parts; at most `workers` at once, in threads.

    Threads, because what takes the time leaves Python: convolutions and matrix products. What a part raises
    is raised here, and parts not yet begun are left.
    """
    if workers == 1:
        yield from map(function, parts)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, parts)
