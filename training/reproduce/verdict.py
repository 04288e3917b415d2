"""What may be said of a difference: computed by one rule, for every sentence of every table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy import stats

CONFIDENCE: Final = 0.95
RULE: Final = (
    "A difference is told where the 95 % t interval of its mean leaves out zero (Welch's for rows of their"
    " own runs, paired by fold and draw for classifiers); else it was too small to tell. Of twenty"
    " comparisons without any difference one is told all the same. Intervals are over runs, folds and draws"
    " of the same images; how other patients would do they do not say."
)

Kind = Literal["holds", "fails", "new", "open"]
"""Of a finding: as the paper reports it, against it, without a figure of the paper, or not to be told."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A sentence whose numbers are computed, and what it says of the paper's claim."""

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference with its interval; both ends are None where there are too few runs for one."""

    mean: float
    low: float | None
    high: float | None

    @property
    def sign(self) -> int:
        """1 or -1 for a difference that may be told, else 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return 0
        return 1 if self.mean > 0 else -1

    def text(self, spec: str = "+.1f", unit: str = "") -> str:
        """`+1.2 points (+0.4 to +2.0)`."""
        mean = f"{self.mean:{spec}}{unit}"
        if self.low is None or self.high is None:
            return f"{mean} (no interval)"
        return f"{mean} ({self.low:{spec}} to {self.high:{spec}})"


def unpaired(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Mean of the values minus that of the others, with Welch's interval."""
    mean = float(np.mean(values) - np.mean(others))
    if min(len(values), len(others)) < 2:
        return Difference(mean=mean, low=None, high=None)
    parts = [float(np.var(each, ddof=1)) / len(each) for each in (values, others)]
    degrees = [len(each) - 1 for each in (values, others)]
    weight = sum(part**2 / degree for part, degree in zip(parts, degrees, strict=True))
    return _interval(mean, sum(parts) ** 0.5, sum(parts) ** 2 / weight if weight > 0 else 1.0)


def paired(differences: Sequence[float]) -> Difference:
    """Mean of differences, each between two runs on the same images with the same seed."""
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return Difference(mean=mean, low=None, high=None)
    error = float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    return _interval(mean, error, len(differences) - 1)


def _interval(mean: float, error: float, degrees: float) -> Difference:
    half = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))
    return Difference(mean=mean, low=mean - half, high=mean + half)


def claim(difference: Difference, paper: float | None) -> Kind:
    """Which kind of finding a difference is. paper: the paper's, None if it reports none."""
    if difference.sign == 0:
        return "open"
    if paper is None or paper == 0:
        return "new"
    return "holds" if difference.sign == (1 if paper > 0 else -1) else "fails"
