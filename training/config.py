"""Everything a run can be told, in frozen dataclasses; a preset gives a whole one, `--set` changes one."""

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, cast, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from training.data import LabelMode
from training.errors import ConfigInvalidError

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""What torch's generators take."""


class Configuration:
    """Base of whole-run configurations: a dataclass of parts, each a dataclass of fields."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in config.json."""
        return dataclasses.asdict(cast(Any, self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`, through JSON or TOML. Raises ConfigInvalidError naming an unknown key."""
        config: Self = _build(cls, values, "")
        return config

    def with_settings(self, settings: list[str]) -> Self:
        """A copy changed by `part.field=value` strings, values as in TOML (bare words are strings)."""
        values = self.to_dict()
        for setting in settings:
            key, separator, text = setting.partition("=")
            part, _, name = key.strip().partition(".")
            if not separator or part not in values or not isinstance(values[part], dict):
                raise ConfigInvalidError(
                    f"--set {setting!r}: write part.field=value, part one of {_parts(values)}"
                )
            if name not in values[part]:
                raise ConfigInvalidError(
                    f"--set {key.strip()}: unknown; {part} has {', '.join(values[part])}"
                )
            values[part][name] = _parse(text.strip())
        return self.from_dict(values)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """hold_out_block: the series block never trained on (0..4), or -1 to train on all images.

    classes: folder name -> class slug, where the folder's own name or `classes.toml` should not decide.
    kinds: how many kinds of images each class is parted into (`training.kinds`), in the order of classes; one
    number is for all of them, and 1 parts none. Without any, a run has those of what it goes on from.
    held_classes: those that a run from a checkpoint teaches nothing, and that its publication draws with that
    one's network (`training.held`).
    """

    label_mode: LabelMode = "mask"
    deduplicate: bool = True
    hold_out_block: int = 4
    flips: bool = True
    rot90: bool = True
    class_balanced: bool = True
    classes: dict[str, str] = field(default_factory=dict)
    kinds: tuple[Count, ...] = ()
    held_classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """Arguments of the generator but for classes and resolution, and how its weights start.

    rgb_skip: the image is the sum of an upsampled half-size image and a correction, which lets a grown
    generator start from the trained smaller one. Others: see `MasanConfig`.
    """

    base_channels: Count = 32
    latent_dim: Count = 128
    attention_sites: Literal["none", "fusion", "skip", "all"] = "fusion"
    attention_groups: Count = 8
    attention_min_width: Count = 1
    attention_resolutions: tuple[int, ...] | None = None
    adain_input: Literal["class", "class+z"] = "class"
    rgb_skip: bool = False
    output_gain: float = 1.0
    noise_resolutions: tuple[int, ...] = ()
    refine_resolutions: tuple[int, ...] = ()
    padding: Literal["zeros", "replicate"] = "zeros"
    chroma_resolution: Count | None = None
    init_gain: Weight = 0.02
    unnormalized: tuple[str, ...] = ("attention",)
    """Submodules, by any part of their name, without spectral norm."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorOptions:
    """kind: `pixel` is the paper's, `projected` stands on frozen features, `combined` is both. `none`: the
    generator follows the Frechet distance alone.

    base_channels, san_head, init_gain, crop_align and down_preact_shortcut are the pixel discriminator's.
    san_head: `per_class` is MASAN's, `plain` CellGAN's, `shared_plus_class` an ablation.
    crop_align: reconstruct windows that lie on feature cells only; published: anywhere.
    down_preact_shortcut: shortcuts see the activated map, as in the published code.
    san_scale: where the projected heads' scales start. With 1, hinge is satisfied within a few hundred images
        and the heads stop learning; smaller keeps them at work.
    pixel_weight: the pixel discriminator's share in the generator's loss when combined.
    """

    kind: Literal["pixel", "projected", "combined", "none"] = "pixel"
    base_channels: Count = 32
    san_head: Literal["per_class", "shared_plus_class", "plain"] = "per_class"
    init_gain: Weight = 0.02
    crop_align: bool = False
    down_preact_shortcut: bool = True
    feature_channels: tuple[Count, ...] = (64, 128, 256, 512)
    head_channels: tuple[Count, ...] = (64, 64, 128, 256, 512)
    """Widths of a projected head's maps at sides 128, 64, 32, 16, 8."""
    pixel_weight: Weight = 0.25
    san_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """DiffAugment, applied to everything a discriminator sees."""

    policy: str = "color"
    color_probability: Share = 1.0
    cutout_ratio: Share = 0.5
    translation_probability: Share = 1.0
    translation_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.125
    translation_fill: Literal["zeros", "reflect"] = "zeros"


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """r1_gamma is weighted by half; r1_every > 1 applies it lazily, scaled up accordingly.

    R1, reconstruction and LeCam are the pixel discriminator's, the energy distances of pooled features and of
    images' colours the projected one's. The Frechet distance within classes (`training.frechet_loss`) and,
    beside it only, that of neighbours (`training.neighbours`) are the generator's alone. A weight of 0 leaves
    a term out.
    """

    gan_loss: Literal["hinge", "lsgan", "nonsat"] = "hinge"
    san_lambda: Weight = 1.0
    r1_gamma: Weight = 0.02
    r1_every: int = 16
    lecam_weight: Weight = 0.0
    reconstruction_weight: Weight = 1.0
    mean_color_weight: Weight = 0.0
    energy_weight: Weight = 0.0
    color_energy_weight: Weight = 0.0
    frechet_weight: Weight = 0.0
    frechet_networks: tuple[int, ...] = (0,)
    """EfficientNet-Lite variants, 0 and 1, whose features it compares, taking turns; Lite2 judges."""
    neighbour_weight: Weight = 0.0
    """Beside the Frechet distance, by the same networks: what each image by itself is told."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Of both networks. ema_kimg: half-life of the weight average in thousands of images.

    kind: `sgd` is the paper's word, without momentum; with it the generator does not learn.
    """

    kind: Literal["adam", "sgd"] = "adam"
    generator_lr: Weight = 2e-4
    discriminator_lr: Weight = 2e-4
    added_lr_factor: Positive = 1.0
    """Of the generator's refinements and noise strengths, over its other weights: what is added to a trained
    generator has all to learn, and the rest much to lose."""
    kind_lr_factor: Positive = 1.0
    """Of what the generator makes of kinds, over its other weights: in a trained one they start alike and end
    as far apart as classes, and Adam moves a number by no more than its rate a step."""
    beta1: Decay = 0.0
    beta2: Decay = 0.99
    batch: int = 64
    micro_batch: Annotated[int, Field(ge=0)] = 0
    """Images a forward pass takes of a batch where there is no discriminator; 0 takes them all."""
    ema_kimg: Weight = 20.0
    ema_rampup: Weight = 0.05
    warmup_kimg: Weight = 0.0
    """Images for which a fresh discriminator, or the Frechet distance, learns alone, after growing or under
    `--init`."""
    rampup_kimg: Weight = 0.0
    """Thousands of images from a run's start in which rates rise from zero."""
    decay_kimg: Weight = 0.0
    """Thousands of images before `run.total_kimg` in which rates fall to zero, as half a cosine."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """precision: `bf16` runs convolutions in bfloat16, losses and normalisations of weights in float32.

    memory_format: how feature maps lie in memory. `auto`, for either, times a convolution on the device when
    the run starts and takes what is fastest; the run's own configuration then names it.
    """

    total_kimg: float = 12_800.0
    resolution: int = 256
    seed: Seed = 2077
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "contiguous"
    compile: bool = False
    """Fuse the generator's element-wise work with `torch.compile`; needs a C++ compiler and a minute."""
    tick_kimg: float = 0.512
    """Images between two status lines; numbers leave the device only then."""
    snapshot_kimg: float = 4.0
    score_images: int = 64
    """Images per class drawn at each snapshot to score the run; 0 scores nothing."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Configuration):
    """A whole run. Raises ConfigInvalidError for values that cannot work."""

    recipe: str
    data: DataConfig = field(default_factory=DataConfig)
    generator: GeneratorOptions = field(default_factory=GeneratorOptions)
    discriminator: DiscriminatorOptions = field(default_factory=DiscriminatorOptions)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_run(self.data, self.run)
        if self.optimizer.batch < 1:
            raise ConfigInvalidError(f"optimizer.batch {self.optimizer.batch} is not at least 1")
        if self.losses.r1_every < 1:
            raise ConfigInvalidError(f"losses.r1_every {self.losses.r1_every} is not at least 1")
        self._check_judges()
        if len(self.discriminator.feature_channels) != 4:
            raise ConfigInvalidError("discriminator.feature_channels needs 4 widths")
        if len(self.discriminator.head_channels) != 5:
            raise ConfigInvalidError("discriminator.head_channels needs 5 widths")

    def _check_judges(self) -> None:
        kind, batch, part = self.discriminator.kind, self.optimizer.batch, self.optimizer.micro_batch
        if self.run.resolution < 64 and (kind != "pixel" or self.losses.frechet_weight > 0):
            judge = "losses.frechet_weight" if kind in ("pixel", "none") else f"discriminator.kind={kind}"
            raise ConfigInvalidError(
                f"run.resolution {self.run.resolution} is too small for {judge}, which needs 64"
            )
        networks = self.losses.frechet_networks
        if networks not in ((0,), (1,), (0, 1)):
            raise ConfigInvalidError(f"losses.frechet_networks {list(networks)} is not [0], [1] or [0, 1]")
        if self.losses.neighbour_weight > 0 and self.losses.frechet_weight == 0:
            weight = self.losses.neighbour_weight
            raise ConfigInvalidError(
                f"losses.neighbour_weight {weight:g}: with losses.frechet_weight above 0 only"
            )
        if kind == "none" and self.losses.frechet_weight == 0:
            raise ConfigInvalidError(
                "discriminator.kind=none leaves nothing to learn from: losses.frechet_weight is 0"
            )
        if part > 0 and (kind != "none" or batch % part):
            raise ConfigInvalidError(
                f"optimizer.micro_batch {part}: with discriminator.kind=none only, "
                f"dividing optimizer.batch {batch}"
            )


def check_run(data: DataConfig, run: RunConfig) -> None:
    """Raises ConfigInvalidError for what no run can be told."""
    if not -1 <= data.hold_out_block <= 4:
        raise ConfigInvalidError(f"data.hold_out_block {data.hold_out_block} is not -1..4")
    if run.score_images < 0 or run.score_images == 1:
        raise ConfigInvalidError(f"run.score_images {run.score_images} is not 0 or at least 2")
    for name in ("tick_kimg", "snapshot_kimg", "total_kimg"):
        if getattr(run, name) <= 0:
            raise ConfigInvalidError(f"run.{name} {getattr(run, name)} is not above 0")


def check_fields(config: Any, path: str = "") -> None:
    """Raises ConfigInvalidError for a field beyond its own bounds, which a constructor does not see."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(hint):
            check_fields(value, f"{path}{name}.")
        else:
            _checked(f"{path}{name}", hint, value)


def _parts(values: dict[str, Any]) -> str:
    return ", ".join(name for name, value in values.items() if isinstance(value, dict))


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return {"none": None, "true": True, "false": False}.get(text.lower(), text)


def _build(cls: Any, values: dict[str, Any], path: str) -> Any:
    hints = get_type_hints(cls, include_extras=True)
    unknown = set(values) - set(hints)
    if unknown:
        raise ConfigInvalidError(f"{path}{min(unknown)} is unknown; there is {', '.join(hints)}")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            arguments[name] = _build(hints[name], value, f"{path}{name}.")
        else:
            arguments[name] = _checked(f"{path}{name}", hints[name], value)
    return cls(**arguments)


def _checked(name: str, hint: Any, value: Any) -> Any:
    """`value` as the annotated type, or ConfigInvalidError; pydantic knows the rules."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigInvalidError(f"{name} {value} is not a finite number")
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        if value is None:  # what `_parse` makes of the bare word, which is also the name of some choices
            return _checked(name, hint, "none")
        raise ConfigInvalidError(f"{name} {value!r}: {error.errors()[0]['msg']}") from None
