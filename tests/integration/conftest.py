"""What tests that run a worker in their own process need."""

import signal
from collections.abc import Iterator
from typing import Final

import pytest

_OWN: Final = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
"""Read before any fixture runs: those of a whole module run workers before those of a test."""


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """A worker in this process takes SIGINT and SIGTERM and would end it at the next one; give them back."""
    yield
    for number, handler in _OWN.items():
        signal.signal(number, handler)
