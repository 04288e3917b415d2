"""A checkpoint's quality report, `report.json` beside its weights: figures per class, extractor named.

Torch-free.

Two judges at least: the extractor whose features also guide a discriminator is `primary`; an extractor
no discriminator has seen is among the `judges`. A Frechet distance is called FID only where the extractor
is the Inception network of the published FID. Beside every figure stands its floor, what real images score
against real images; two reports compare only where `ensure_comparable` lets them.
"""

import logging
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from model_store.errors import ModelStoreError, WeightsCorruptedError
from model_store.manifest import Sha256, Slug
from model_store.report_figures import (
    ClassChecks,
    ClassFigures,
    CmmdFigures,
    CmmdReport,
    ColorFigures,
    CopyingFigures,
    FewShot,
    FlaggedImage,
    FloorFigures,
    Frozen,
    MeanFigures,
    PooledFigures,
    Utility,
)
from model_store.store import Checkpoint, ModelStore

__all__ = [
    "CELLGAN_EXTRACTOR",
    "INCEPTION_EXTRACTOR",
    "INCEPTION_SHA256_PREFIX",
    "REPORT_FILE",
    "ClassChecks",
    "ClassFigures",
    "CmmdFigures",
    "CmmdReport",
    "ColorFigures",
    "CopyingFigures",
    "ExtractorReport",
    "FewShot",
    "FidProtocol",
    "FlaggedImage",
    "FloorFigures",
    "MeanFigures",
    "PooledFigures",
    "QualityReport",
    "ReportInvalidError",
    "ReportsIncomparableError",
    "Utility",
    "attach_report",
    "comparable",
    "ensure_comparable",
    "read_report",
]

logger = logging.getLogger(__name__)

REPORT_FILE = "report.json"
INCEPTION_EXTRACTOR = "inception-v3"
"""Inception as FID's reference reads images: TensorFlow's resize, inputs in [-1, 1]."""
CELLGAN_EXTRACTOR = "inception-v3-cellgan"
"""The same weights, fed as CellGAN's code feeds them: comparable with that paper only, never a FID."""
INCEPTION_SHA256_PREFIX = "6726825d"
"""Source: file name of the converted 2015-12-05 weights that FID's reference ports load."""

FidProtocol = Literal["standard", "cellgan"]


class ExtractorReport(Frozen):
    """All classes under one feature extractor.

    extractor: e.g. `efficientnet-lite0`. preprocessing: how uint8 RGB became its input. reference_digest:
    over the names and bytes of the real images and their cleaning. fid_protocol: which of the two ways of
    reading images Inception was given, None for another network. Figures of two reports compare only if
    `comparison_key` and the real images are equal: see `ensure_comparable`.
    """

    extractor: str
    extractor_sha256: Sha256
    preprocessing: str
    reference_digest: Sha256
    classes: Annotated[dict[Slug, ClassFigures], Field(min_length=1)]
    mean: MeanFigures
    pooled: PooledFigures | None = None
    fid_protocol: FidProtocol | None = None

    @property
    def is_inception(self) -> bool:
        """Whether this extractor's Frechet distance is the one the field calls FID."""
        return self.extractor == INCEPTION_EXTRACTOR and self.extractor_sha256.startswith(
            INCEPTION_SHA256_PREFIX
        )

    @property
    def n_real(self) -> int:
        """Real images over all classes."""
        return sum(figures.n_real for figures in self.classes.values())

    @property
    def n_fake(self) -> int:
        """Generated images over all classes."""
        return sum(figures.n_fake for figures in self.classes.values())

    def nearest_class(self, slug: str) -> str | None:
        """Class whose real images lie nearest to the generated ones of `slug`; None without a matrix."""
        row = self.classes[slug].distance_to
        return min(row, key=row.__getitem__) if row else None

    def diagonal_factor(self, slug: str) -> float | None:
        """How many times further the nearest other class lies than the own one; above 1 the own one wins.

        None without a matrix of two classes, infinite at distance 0 from its own.
        """
        row = self.classes[slug].distance_to
        others = [distance for other, distance in row.items() if other != slug]
        if not others or slug not in row:
            return None
        return min(others) / row[slug] if row[slug] else float("inf")

    @property
    def diagonal_wins(self) -> bool | None:
        """Whether every class's generated images lie nearest to its own real ones; None without a matrix."""
        factors = [self.diagonal_factor(slug) for slug in self.classes]
        known = [factor for factor in factors if factor is not None]
        return all(factor > 1 for factor in known) if len(known) == len(factors) else None

    def comparison_key(self) -> dict[str, str]:
        """What must be equal for the figures to be compared, by name."""
        return {
            "extractor": self.extractor,
            "extractor_sha256": self.extractor_sha256,
            "preprocessing": self.preprocessing,
            "reference_digest": self.reference_digest,
            "n_real": _counts({slug: figures.n_real for slug, figures in self.classes.items()}),
            "n_fake": _counts({slug: figures.n_fake for slug, figures in self.classes.items()}),
        }


def _counts(by_class: dict[str, int]) -> str:
    return ", ".join(f"{slug} {count}" for slug, count in sorted(by_class.items()))


class QualityReport(Frozen):
    """What `report.json` holds. `digest` is the digest of the checkpoint that was judged.

    truncation and seed: how the generated images were drawn. deduplicated: whether near-duplicates were
    removed from the real images. fid_reason, cmmd_reason: why the section is absent.
    notes: what a reader must know to not over-read the figures.
    Version 2 added to version 1: floors of every figure, colour, copying, few-shot, FID and CMMD.
    """

    schema_version: Literal[1, 2] = 2
    digest: Sha256
    created_at: AwareDatetime
    truncation: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    primary: ExtractorReport
    judges: tuple[ExtractorReport, ...] = ()
    checks: dict[Slug, ClassChecks] = Field(default_factory=dict)
    utility: Utility | None = None
    deduplicated: bool | None = None
    fid_reason: str | None = None
    cmmd: CmmdReport | None = None
    cmmd_reason: str | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _extractors_agree_on_classes(self) -> Self:
        names = [report.extractor for report in self.extractors]
        if len(set(names)) != len(names):
            raise ValueError("extractors must be distinct")
        for judge in self.judges:
            if judge.classes.keys() != self.primary.classes.keys():
                raise ValueError(f"{judge.extractor} judges other classes than {self.primary.extractor}")
        return self

    @property
    def extractors(self) -> tuple[ExtractorReport, ...]:
        """Primary first."""
        return (self.primary, *self.judges)

    def of_extractor(self, name: str) -> ExtractorReport | None:
        """The figures under that extractor, None if it has not judged."""
        return next((report for report in self.extractors if report.extractor == name), None)


class ReportInvalidError(ModelStoreError):
    """The report of a checkpoint cannot be used; `reason` says why."""

    def __init__(self, reference: str, reason: str) -> None:
        self.reference = reference
        self.reason = reason
        super().__init__(f"quality report of {reference}: {reason}")


class ReportsIncomparableError(ModelStoreError):
    """Two reports were made under different conditions; `key` names the first that differs."""

    def __init__(self, key: str, first: str, second: str) -> None:
        self.key = key
        self.first = first
        self.second = second
        super().__init__(f"these reports cannot be compared: {key} is {first} in one, {second} in the other")


def ensure_comparable(first: QualityReport, second: QualityReport) -> tuple[str, ...]:
    """Names of the extractors that judge both, the primary first.

    What only one of the reports holds is left out; the primary extractor must judge both.
    Raises ReportsIncomparableError naming the first key that differs.
    """
    shared = []
    for ours in first.extractors:
        theirs = second.of_extractor(ours.extractor)
        if theirs is None and ours is not first.primary:
            continue
        other = (theirs or second.primary).comparison_key()
        for key, value in ours.comparison_key().items():
            _ensure_equal(key if key == "extractor" else f"{key} of {ours.extractor}", value, other[key])
        shared.append(ours.extractor)
    _ensure_equal("primary extractor", first.primary.extractor, second.primary.extractor)
    for key in ("deduplicated", "truncation"):
        _ensure_equal(key, str(getattr(first, key)), str(getattr(second, key)))
    return tuple(shared)


def comparable(first: QualityReport, second: QualityReport) -> bool:
    """Whether figures of the two reports may be compared."""
    try:
        ensure_comparable(first, second)
    except ReportsIncomparableError:
        return False
    return True


def _ensure_equal(key: str, first: str, second: str) -> None:
    if first != second:
        raise ReportsIncomparableError(key, first, second)


def read_report(store: ModelStore, checkpoint: Checkpoint) -> QualityReport | None:
    """The checkpoint's newest report, None if it has none.

    That is the last one attached since it was published which can be read, else the one published with it.
    Raises ReportInvalidError for a report of another schema or of another checkpoint, WeightsCorruptedError
    for a file that is missing or is not the one the manifest names, ManifestInvalidError for a damaged index
    of attached reports.
    """
    for entry in store.attached_reports(checkpoint):
        try:
            return _parse(store.read_attached(checkpoint, entry), checkpoint)
        except (ReportInvalidError, WeightsCorruptedError) as error:
            extra = {"model": checkpoint.reference, "reason": str(error)}
            logger.warning("attached report passed over", extra=extra)
    if not any(entry.path == REPORT_FILE for entry in checkpoint.manifest.reports):
        return None
    return _parse(store.read_file(checkpoint, REPORT_FILE), checkpoint)


def attach_report(store: ModelStore, checkpoint: Checkpoint, report: QualityReport) -> None:
    """Make a report the checkpoint's newest. Raises ReportInvalidError for that of another checkpoint."""
    content = (report.model_dump_json(indent=1) + "\n").encode()
    _parse(content, checkpoint)
    store.attach_report(checkpoint, content)


def _parse(content: bytes, checkpoint: Checkpoint) -> QualityReport:
    """Raises ReportInvalidError."""
    try:
        report = QualityReport.model_validate_json(content)
    except ValueError as error:
        raise ReportInvalidError(checkpoint.reference, str(error)) from error
    if report.digest != checkpoint.digest:
        reason = f"is of another checkpoint, digest {report.digest[:16]}"
        raise ReportInvalidError(checkpoint.reference, reason)
    return report
