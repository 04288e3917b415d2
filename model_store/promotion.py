"""The gate before an alias: a checkpoint whose report is worse for a class does not take another's place.

Torch-free. Classes are judged one by one, because a mean hides the class that collapsed. What a class must
keep is relative to the checkpoint the alias names now; what no class may have is absolute, and is all that
applies where that checkpoint has no report.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from model_store.errors import ModelNotFoundError, ModelStoreError
from model_store.report import (
    ClassChecks,
    ClassFigures,
    ExtractorReport,
    QualityReport,
    ReportsIncomparableError,
    ensure_comparable,
    read_report,
)
from model_store.store import PRODUCTION, AliasMovedError, Checkpoint, ModelStore, Override

MAX_SCALE_BAR_RATIO = 0.01
"""Source: the detector finds no bar on 800 cleaned real images, and one on 96 to 100 % of uncleaned ones."""
MAX_MEMORIZED_RATIO = 0.0
MAX_LUMA_SD = 1.0
"""Shift of the mean luma, in standard deviations of the real images. Series of a class differ by as much."""
FREE_LUMA_SD = 0.5
"""A smaller shift is not held against a checkpoint, whatever production has."""
MIN_COVERAGE_LOSS = 0.02
_SE_FACTOR = 2.0
"""Differences up to two standard errors are chance."""


@dataclass(frozen=True, slots=True)
class GateFailure:
    """One figure of one class that speaks against a promotion.

    candidate: None if it was not measured. production: None where the limit is absolute. is_upper: whether
    `limit` is the most or the least that is allowed.
    """

    class_slug: str
    figure: str
    candidate: float | None
    production: float | None
    limit: float
    is_upper: bool = True

    def __str__(self) -> str:
        value = "was not measured" if self.candidate is None else f"is {self.candidate:.4g}"
        there = "" if self.production is None else f"; production has {self.production:.4g}"
        bound = "at most" if self.is_upper else "at least"
        return f"{self.class_slug}: {self.figure} {value}{there}; {bound} {self.limit:.4g} is allowed"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion did. previous: the version the alias named before, None for none."""

    checkpoint: Checkpoint
    alias: str
    previous: str | None
    overridden: tuple[str, ...]


class PromotionRefusedError(ModelStoreError):
    """The quality gate refuses; `reasons` has each, a figure of a class or a sentence, `gates` their text."""

    def __init__(self, reference: str, alias: str, reasons: tuple[GateFailure | str, ...]) -> None:
        self.reference = reference
        self.reasons = reasons
        self.gates = tuple(map(str, reasons))
        super().__init__(f"{reference} does not become {alias}: {'; '.join(self.gates)}")


def judge_promotion(candidate: QualityReport, production: QualityReport | None) -> tuple[GateFailure, ...]:
    """Everything that speaks against the candidate, class by class; nothing if it may go ahead.

    production: None applies the absolute limits alone.
    Raises ReportsIncomparableError for reports whose figures cannot be compared.
    """
    shared = () if production is None else ensure_comparable(candidate, production)
    failures: list[GateFailure] = []
    for slug in candidate.primary.classes:
        for report in candidate.extractors:
            other = production.of_extractor(report.extractor) if production else None
            if other is not None and report.extractor in shared:
                failures += _judge_figures(slug, report, other)
            failures += _judge_identity(slug, report, other)
        checks = candidate.checks.get(slug) or ClassChecks(n=1)
        failures += _judge_checks(slug, checks, production.checks.get(slug) if production else None)
    return tuple(failures)


def gates_against(
    store: ModelStore, candidate: Checkpoint, production: Checkpoint | None
) -> tuple[GateFailure | str, ...]:
    """Each reason not to let `candidate` take the place of `production`."""
    gates: list[str] = []
    report = _readable_report(store, candidate, gates)
    if report is None:
        missing = f"{candidate.reference} has no quality report; ask for one with POST /reports"
        return tuple(gates) or (missing,)
    other = _readable_report(store, production, gates) if production else None
    try:
        failures = judge_promotion(report, other)
    except ReportsIncomparableError as error:
        gates.append(f"{error}; make both with the same number of images and the same reference")
        failures = judge_promotion(report, None)
    return (*gates, *failures)


def promote(
    store: ModelStore,
    name: str,
    version: str,
    *,
    alias: str = PRODUCTION,
    force_reason: str | None = None,
    expected: str | Literal[False] | None = False,
) -> Promotion:
    """Let an alias name a version, if the gate agrees or, with `force_reason`, although it does not.

    expected: the version (None: none) that the alias must still name; False: whichever.
    Raises PromotionRefusedError, AliasMovedError if the alias changes while it is being judged, and what
    `ModelStore.promote` raises.
    """
    store.check_alias(name, alias)
    candidate = store.resolve(f"{name}@{version}")
    if candidate.manifest.version != version:
        raise ModelNotFoundError(f"{name}@{version}", store.versions(name))
    current = store.aliases(name).get(alias)
    if expected is not False and current != expected:
        raise AliasMovedError(name, alias, current)
    if current == version:
        return Promotion(candidate, alias, current, ())
    production = store.resolve(f"{name}@{current}") if current else None
    reasons = gates_against(store, candidate, production)
    gates = tuple(map(str, reasons))
    if reasons and force_reason is None:
        raise PromotionRefusedError(candidate.reference, alias, reasons)
    override = Override(gates, force_reason) if gates and force_reason is not None else None
    store.promote(name, version, alias, override=override, expected=current)
    return Promotion(candidate, alias, current, gates)


def _readable_report(store: ModelStore, checkpoint: Checkpoint, gates: list[str]) -> QualityReport | None:
    """The report, None without one. A damaged one is noted among the gates."""
    try:
        return read_report(store, checkpoint)
    except ModelStoreError as error:
        gates.append(str(error).splitlines()[0])
        return None


def _judge_figures(slug: str, report: ExtractorReport, other: ExtractorReport) -> Iterator[GateFailure]:
    """KID and coverage under one extractor, against production's."""
    ours, theirs = report.classes[slug], other.classes[slug]
    limit = max(theirs.kid + theirs.kid_sd, _kid_of_real(ours)) + ours.kid_sd
    if ours.kid > limit:
        yield GateFailure(slug, f"KID ({report.extractor})", ours.kid, theirs.kid, limit)
    if theirs.coverage is None:
        return
    figure = f"coverage ({report.extractor})"
    if ours.coverage is None:
        yield GateFailure(slug, figure, None, theirs.coverage, theirs.coverage, is_upper=False)
        return
    error = math.hypot(_ratio_error(ours.coverage, ours.n_real), _ratio_error(theirs.coverage, theirs.n_real))
    least = theirs.coverage - max(MIN_COVERAGE_LOSS, _SE_FACTOR * error)
    if ours.coverage < least:
        yield GateFailure(slug, figure, ours.coverage, theirs.coverage, least, is_upper=False)


def _kid_of_real(figures: ClassFigures) -> float:
    """Upper end of what real images score among themselves: below it, nothing is worse than anything."""
    floor = figures.floor_figures
    if floor is not None:
        return floor.kid + floor.kid_sd
    return figures.kid_floor if figures.kid_floor is not None else -math.inf


def _judge_identity(
    slug: str, report: ExtractorReport, other: ExtractorReport | None
) -> Iterator[GateFailure]:
    """Generated images must lie nearer to their own class's real ones than to any other's."""
    ours = report.diagonal_factor(slug)
    theirs = other.diagonal_factor(slug) if other is not None and slug in other.classes else None
    least = 1.0 if theirs is None else min(1.0, theirs)
    if ours is not None and ours < least:
        figure = f"distance to the nearest other class over that to its own ({report.extractor})"
        yield GateFailure(slug, figure, ours, theirs, least, is_upper=False)


def _judge_checks(slug: str, ours: ClassChecks, theirs: ClassChecks | None) -> Iterator[GateFailure]:
    """What is seen on pixels. Worse figures of production widen the limits, except that of copies."""
    yield from _judge_ratio(slug, "memorised share", ours.memorized_ratio, None, MAX_MEMORIZED_RATIO)
    bars = theirs.scale_bar_ratio if theirs else None
    yield from _judge_ratio(slug, "scale-bar share", ours.scale_bar_ratio, bars, MAX_SCALE_BAR_RATIO)
    if ours.luma_delta is None or not ours.luma_sd_real:
        yield GateFailure(
            slug, "shift of the mean luma, in real standard deviations,", None, None, MAX_LUMA_SD
        )
        return
    shift = abs(ours.luma_delta)
    if theirs is None or theirs.luma_delta is None:
        before, limit = None, MAX_LUMA_SD * ours.luma_sd_real
    else:
        before = abs(theirs.luma_delta)
        error = math.hypot(_mean_error(ours), _mean_error(theirs))
        limit = max(FREE_LUMA_SD * ours.luma_sd_real, before + _SE_FACTOR * error)
    if shift > limit:
        yield GateFailure(slug, "shift of the mean luma", shift, before, limit)


def _judge_ratio(
    slug: str, figure: str, ours: float | None, theirs: float | None, absolute: float
) -> Iterator[GateFailure]:
    limit = max(absolute, theirs or 0.0)
    if ours is None or ours > limit:
        yield GateFailure(slug, figure, ours, theirs, limit)


def _ratio_error(ratio: float, count: int) -> float:
    """Standard error of a share of `count`."""
    return math.sqrt(ratio * (1 - ratio) / count)


def _mean_error(checks: ClassChecks) -> float:
    """Standard error of the mean luma of the generated images, grey levels."""
    return (checks.luma_sd or 0.0) / math.sqrt(checks.n)
