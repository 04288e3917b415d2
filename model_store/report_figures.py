"""The figures a quality report is made of, each beside what real images score. Torch-free."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from model_store.manifest import Sha256, Slug

Ratio = Annotated[FiniteFloat, Field(ge=0, le=1)]
Distance = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=2)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FloorFigures(Frozen):
    """What one half of a class's real images scores against the other half, mean over several splits.

    n: images a side, of the smaller half. sd of the splits: frechet_distance_sd, kid_sd. The figures are
    those of `ClassFigures`, so that each stands beside its floor (or, from 0 to 1, beside its ceiling).
    """

    n: Count
    frechet_distance: Distance
    frechet_distance_sd: Distance
    kid: FiniteFloat
    kid_sd: Distance
    mmd: Distance
    precision: Ratio | None = None
    recall: Ratio | None = None
    density: Distance | None = None
    coverage: Ratio | None = None


class CopyingFigures(Frozen):
    """Copying seen in features: weaker than the aligned thumbnails of `ClassChecks`, never enough alone.

    Training images are those of all series blocks but the held-out one.
    c_t: z-score of whether generated images lie nearer to training images than held-out ones do; below -3
    speaks for copying. None, and `c_t_reason` says why, unless `frechet_held_out`, the distance of generated
    to held-out images, is below twice `frechet_held_out_floor`, that of random real sets of these sizes.
    c_t_floor: what training images score that were set aside from the others.
    authenticity: share of generated images that lie further from their nearest training image than that one
    lies from its own nearest; authenticity_floor and its sd: of one half of the training images against the
    other. Fails only if below the floor by more than 3 sd.
    """

    n_train: Count
    n_held_out: Count
    n_fake: Count
    frechet_held_out: Distance
    frechet_held_out_floor: Distance
    c_t: FiniteFloat | None
    c_t_reason: str | None = None
    c_t_floor: FiniteFloat
    authenticity: Ratio
    authenticity_floor: Ratio
    authenticity_floor_sd: Distance
    authenticity_held_out: Ratio


class ClassFigures(Frozen):
    """One class under one extractor: generated images against real ones of the same class.

    floor: Frechet distance of two random halves of the real images, at `floor_n` a side: what a perfect
    generator would get. floor_blocked: the same between other series of the class. kid_floor: KID of the
    real halves. kid_sd: over subsets. mmd: 1000 x squared Gaussian-kernel MMD of unit-length features.
    floor_figures, floor_blocked_figures: every figure of the random and of the series-blocked halves.
    distance_to: Frechet distance to every class's real images, its own included, so that a reader sees
    whether the class is the nearest; real_distance_to: the same from its real images. kid_to, real_kid_to:
    the same in KID. copying: None without a held-out block. None: not computed.
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
    kid_to: dict[Slug, FiniteFloat] = Field(default_factory=dict)
    real_kid_to: dict[Slug, FiniteFloat] = Field(default_factory=dict)
    floor_figures: FloorFigures | None = None
    floor_blocked_figures: FloorFigures | None = None
    copying: CopyingFigures | None = None


class MeanFigures(Frozen):
    """Plain mean over the classes; floors too, their `n` the smallest."""

    frechet_distance: Distance
    floor: Distance
    kid: FiniteFloat
    mmd: Distance | None = None
    precision: Ratio | None = None
    recall: Ratio | None = None
    density: Distance | None = None
    coverage: Ratio | None = None
    floor_figures: FloorFigures | None = None
    floor_blocked_figures: FloorFigures | None = None


class PooledFigures(Frozen):
    """All classes at once: generated images in equal shares, real images as many as there are.

    floor: of random halves of all real images, at `floor_n` a side.
    """

    n_real: Count
    n_fake: Count
    frechet_distance: Distance
    floor: Distance
    floor_n: Count
    kid: FiniteFloat
    kid_sd: Distance
    kid_floor: FiniteFloat


class CmmdFigures(Frozen):
    """CMMD of one class; floor and floor_blocked: of random and of series-blocked halves of real images."""

    n_real: Count
    n_fake: Count
    cmmd: Distance
    floor: Distance
    floor_blocked: Distance | None = None


class CmmdReport(Frozen):
    """1000 x squared MMD of unit-length CLIP embeddings, Gaussian kernel of sigma 10, V-statistic.

    Compares means of embeddings: blind to mode collapse at a fixed mean.
    """

    extractor: str
    extractor_sha256: Sha256
    preprocessing: str
    reference_digest: Sha256
    classes: Annotated[dict[Slug, CmmdFigures], Field(min_length=1)]
    mean: Distance


class ColorFigures(Frozen):
    """Colour of generated images beside that of real ones, above the scale bar; levels 0..255.

    rgb_delta: mean of generated minus real images. background_luma: median over images of the luma that
    95 % of an image's pixels stay under. dark_ratio: share of pixels with luma below 110.
    luma_wasserstein: 1-Wasserstein distance of the luma histograms, in levels; its floors between random
    and between series-blocked halves of the real images, as luma_delta_blocked for `luma_delta`.
    """

    rgb_delta: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    background_luma: Distance
    background_luma_real: Distance
    dark_ratio: Ratio
    dark_ratio_real: Ratio
    luma_wasserstein: Distance
    luma_wasserstein_floor: Distance
    luma_wasserstein_blocked: Distance | None = None
    luma_delta_blocked: Distance | None = None


class FlaggedImage(Frozen):
    """A generated image that is too like a training image.

    index: of the report's seed and class. source: `class folder/file` of the training image, or an opaque
    name where the files are not to be told.
    """

    index: Annotated[int, Field(ge=0)]
    similarity: FiniteFloat
    source: str


class ClassChecks(Frozen):
    """Extractor-free checks of `n` generated images of one class. None: not computed.

    luma_delta: mean luma (0..255) of generated minus real images; luma_sd and luma_sd_real: between images.
    scale_bar_ratio: share with a burnt-in scale bar; scale_bar_ratio_real: of the cleaned real images.
    memorized_ratio: share whose aligned thumbnail is too like a training image; memorized_ratio_real: of
    real images that no generator has seen. similarity_max and similarity_p99: of their highest correlations,
    and similarity_real_p99 the same for those real images. flagged: the images counted in memorized_ratio.
    label_agreement_ratio: share that a classifier trained on real images gives this class;
    label_agreement_ratio_real: of unseen real images.
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
    scale_bar_ratio_real: Ratio | None = None
    memorized_ratio_real: Ratio | None = None
    label_agreement_ratio_real: Ratio | None = None
    flagged: tuple[FlaggedImage, ...] = ()
    color: ColorFigures | None = None


class FewShot(Frozen):
    """The classifier on `n_per_class` real images a class, with and without all generated ones beside them.

    Mean and sd over `seeds` draws of the real images; gain: with minus without, paired by draw.
    """

    n_per_class: Annotated[int, Field(ge=1)]
    seeds: Annotated[int, Field(ge=2)]
    real_accuracy: Ratio
    real_accuracy_sd: Distance
    augmented_accuracy: Ratio
    augmented_accuracy_sd: Distance
    gain: FiniteFloat
    gain_sd: Distance


class Utility(Frozen):
    """A linear classifier on features of `extractor`, tested on real images that no generator has seen.

    synthetic_*: trained on `n_synthetic` generated images. real_*: trained on `n_real` real ones. accuracy:
    mean of the classes' recalls; chance is one over their number. few_shot: by ascending `n_per_class`.
    """

    extractor: str
    n_test: Annotated[int, Field(ge=1)]
    n_synthetic: Count
    n_real: Count
    synthetic_accuracy: Ratio
    real_accuracy: Ratio
    synthetic_recall: dict[Slug, Ratio]
    real_recall: dict[Slug, Ratio]
    few_shot: tuple[FewShot, ...] = ()
