"""From a time budget to the largest scale that fits it by estimate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.errors import ConfigInvalidError
from training.reproduce.scale import PAPER, Scale, differences, reductions


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A scale that fits, its estimated seconds, and those of the scale it was cut down from."""

    scale: Scale
    seconds: float
    full_seconds: float


def fit(scale: Scale, budget_s: float, cost_s: Callable[[Scale], float]) -> Fit:
    """The first of ever cheaper scales whose estimate is within the budget.

    A larger budget never gives less of any knob. Raises ConfigInvalidError if even the smallest does not fit.
    """
    full_seconds = None
    for smaller, seconds in reductions(scale, cost_s):
        full_seconds = seconds if full_seconds is None else full_seconds
        if seconds <= budget_s:
            return Fit(scale=smaller, seconds=seconds, full_seconds=full_seconds)
    raise ConfigInvalidError(
        f"--budget {duration(budget_s)} is too small: the smallest plan takes about {duration(seconds)}"
    )


def dropped(used: Scale, knobs: Sequence[str], full: Scale = PAPER) -> list[str]:
    """What stands between this scale and the full one, for the knobs that matter."""
    return differences(full, used, knobs)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * length:
            value = seconds / length
            return f"{value:.3g} {unit}"
    return f"{seconds / 86_400:.3g} days"
