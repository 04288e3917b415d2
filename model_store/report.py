"""A checkpoint's quality report, `report.json` beside its weights: figures per class, extractor named.

Torch-free.

Two judges at least: the extractor whose features also guide a discriminator is `primary`; an extractor
no discriminator has seen is among the `judges`. A Frechet distance is called FID only where the extractor
is the Inception network of the published FID.
"""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from model_store.errors import ModelStoreError
from model_store.manifest import Sha256, Slug
from model_store.store import Checkpoint, ModelStore

REPORT_FILE = "report.json"
INCEPTION_EXTRACTOR = "inception-v3"
INCEPTION_SHA256_PREFIX = "6726825d"
"""Source: file name of the converted 2015-12-05 weights that FID's reference ports load."""

Ratio = Annotated[FiniteFloat, Field(ge=0, le=1)]
Distance = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=2)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassFigures(_Frozen):
    """One class under one extractor: generated images against real ones of the same class.

    floor: Frechet distance of two random halves of the real images, at `floor_n` a side: what a perfect
    generator would get. floor_blocked: the same between other series of the class. kid_floor: KID of the
    real halves. kid_sd: over subsets. mmd: 1000 x squared Gaussian-kernel MMD of unit-length features.
    distance_to: Frechet distance to every class's real images, its own included, so that a reader sees
    whether the class is the nearest; real_distance_to: the same from its real images. None: not computed.
    """

    n_real: Count
    n_fake: Count
    frechet_distance: Distance
    floor: Distance
    floor_n: Count
    floor_blocked: Distance | None = None
    kid: FiniteFloat
    kid_sd: Distance
    kid_floor: FiniteFloat | None = None
    mmd: Distance | None = None
    precision: Ratio | None = None
    recall: Ratio | None = None
    density: Distance | None = None
    coverage: Ratio | None = None
    distance_to: dict[Slug, Distance] = Field(default_factory=dict)
    real_distance_to: dict[Slug, Distance] = Field(default_factory=dict)


class MeanFigures(_Frozen):
    """Plain mean over the classes."""

    frechet_distance: Distance
    floor: Distance
    kid: FiniteFloat
    precision: Ratio | None = None
    recall: Ratio | None = None
    density: Distance | None = None
    coverage: Ratio | None = None


class ExtractorReport(_Frozen):
    """All classes under one feature extractor.

    extractor: e.g. `efficientnet-lite0`. preprocessing: how uint8 RGB became its input. reference_digest:
    over the names and bytes of the real images and their cleaning. Figures of two reports compare only if
    extractor_sha256, preprocessing and reference_digest are equal.
    """

    extractor: str
    extractor_sha256: Sha256
    preprocessing: str
    reference_digest: Sha256
    classes: Annotated[dict[Slug, ClassFigures], Field(min_length=1)]
    mean: MeanFigures

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


class ClassChecks(_Frozen):
    """Extractor-free checks of `n` generated images of one class. None: not computed.

    luma_delta: mean luma (0..255) of generated minus real images; luma_sd and luma_sd_real: between images.
    scale_bar_ratio: share with a burnt-in scale bar. memorized_ratio: share whose aligned thumbnail is too
    like a training image; similarity_max and similarity_p99: of their highest correlations, and
    similarity_real_p99 the same for real images that no generator has seen. label_agreement_ratio: share
    that a classifier trained on real images gives this class.
    """

    n: Annotated[int, Field(ge=1)]
    luma_delta: FiniteFloat | None = None
    luma_sd: Distance | None = None
    luma_sd_real: Distance | None = None
    scale_bar_ratio: Ratio | None = None
    memorized_ratio: Ratio | None = None
    similarity_max: FiniteFloat | None = None
    similarity_p99: FiniteFloat | None = None
    similarity_real_p99: FiniteFloat | None = None
    label_agreement_ratio: Ratio | None = None


class Utility(_Frozen):
    """A linear classifier on features of `extractor`, tested on real images that no generator has seen.

    synthetic_*: trained on `n_synthetic` generated images. real_*: trained on `n_real` real ones. accuracy:
    mean of the classes' recalls.
    """

    extractor: str
    n_test: Annotated[int, Field(ge=1)]
    n_synthetic: Count
    n_real: Count
    synthetic_accuracy: Ratio
    real_accuracy: Ratio
    synthetic_recall: dict[Slug, Ratio]
    real_recall: dict[Slug, Ratio]


class QualityReport(_Frozen):
    """What `report.json` holds. `digest` is the digest of the checkpoint that was judged.

    truncation and seed: how the generated images were drawn. deduplicated: whether the real images hold no
    near-duplicates. notes: what a reader must know to not over-read the figures.
    """

    schema_version: Literal[1] = 1
    digest: Sha256
    created_at: AwareDatetime
    truncation: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    primary: ExtractorReport
    judges: tuple[ExtractorReport, ...] = ()
    checks: dict[Slug, ClassChecks] = Field(default_factory=dict)
    utility: Utility | None = None
    deduplicated: bool | None = None
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


class ReportInvalidError(ModelStoreError):
    """The report of a checkpoint cannot be used; `reason` says why."""

    def __init__(self, reference: str, reason: str) -> None:
        self.reference = reference
        self.reason = reason
        super().__init__(f"quality report of {reference}: {reason}")


def read_report(store: ModelStore, checkpoint: Checkpoint) -> QualityReport | None:
    """The checkpoint's report, None if it was published without one.

    Raises ReportInvalidError for a report of another schema or of another checkpoint, WeightsCorruptedError
    for a file that is missing or is not the one the manifest names.
    """
    if not any(entry.path == REPORT_FILE for entry in checkpoint.manifest.reports):
        return None
    reference = checkpoint.manifest.reference
    try:
        report = QualityReport.model_validate_json(store.read_file(checkpoint, REPORT_FILE))
    except ValueError as error:
        raise ReportInvalidError(reference, str(error)) from error
    if report.digest != checkpoint.manifest.digest:
        raise ReportInvalidError(reference, f"is of another checkpoint, digest {report.digest[:16]}")
    return report
