"""How large an experiment is: its knobs, the two starting points, and what a smaller budget takes away."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, cast

from training.errors import ConfigInvalidError


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Every knob a budget may turn.

    resolution, base_channels, batch: of the GANs; recipe_networks: take networks and precision as the recipe
    has them. kimg: thousands of images each GAN sees; autoencoder_kimg, denoiser_kimg: those of the diffusion
    model's stages, whose preset is `ldm`. sampling_steps: denoising steps of one of its images. seeds: runs
    of a row. n_fake, n_real: generated images per class that a row is judged by, and real ones at most.
    folds: of five, how many are run. epochs: over real images plus synthetic ones. real_per_class: images
    that the classifiers share out into folds. synthetic_per_class: added to each training fold. image_size:
    side of a ResNet's input.
    """

    name: str
    resolution: int
    base_channels: int
    batch: int
    recipe_networks: bool
    kimg: float
    ldm: str
    autoencoder_kimg: float
    denoiser_kimg: float
    sampling_steps: int
    seeds: int
    n_fake: int
    n_real: int
    folds: int
    epochs: int
    real_per_class: int
    synthetic_per_class: int
    image_size: int
    classifiers: tuple[str, ...]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise ConfigInvalidError(f"scale.{field.name} {value} is not above 0")
        if self.folds > FOLDS:
            raise ConfigInvalidError(f"scale.folds {self.folds} is not 1..{FOLDS}")
        if min(self.n_fake, self.n_real) < MINIMUM_JUDGED:
            raise ConfigInvalidError(
                f"scale.n_fake {self.n_fake} and scale.n_real {self.n_real} must be at least {MINIMUM_JUDGED}"
            )


GENERATOR_KNOBS: Final = (
    "resolution",
    "base_channels",
    "batch",
    "kimg",
    "ldm",
    "autoencoder_kimg",
    "denoiser_kimg",
    "sampling_steps",
)
"""What decides how generators are trained: GANs and the diffusion baseline."""
FOLDS: Final = 5
MINIMUM_JUDGED: Final = 6
"""Images of a class that precision and recall need: five neighbours and the image itself."""

PAPER: Final = Scale(
    name="paper",
    resolution=256,
    base_channels=32,
    batch=64,
    recipe_networks=True,
    kimg=12_800.0,
    ldm="ldm",
    autoencoder_kimg=288.0,
    denoiser_kimg=6_400.0,
    sampling_steps=50,
    seeds=3,
    n_fake=1_000,
    n_real=1_000,
    folds=FOLDS,
    epochs=30,
    real_per_class=500,
    synthetic_per_class=2_000,
    image_size=224,
    classifiers=("resnet34", "resnext50", "cnn"),
)
"""The publication's own counts."""

LAPTOP: Final = replace(
    PAPER,
    name="laptop",
    resolution=128,
    base_channels=16,
    batch=16,
    recipe_networks=False,
    kimg=40.0,
    ldm="ldm-cpu",
    autoencoder_kimg=36.0,
    denoiser_kimg=300.0,
    sampling_steps=25,
    n_fake=500,
    epochs=15,
    synthetic_per_class=500,
    image_size=64,
)
"""A night or several on two cores. The diffusion model's kimg cost the FLOPs of `kimg` of a GAN."""

SCALES: Final = {"paper": PAPER, "laptop": LAPTOP}

_SIZES: Final = (
    (256, 32, 64),
    (256, 16, 64),
    (128, 32, 32),
    (128, 16, 16),
    (64, 16, 16),
    (64, 8, 16),
    (64, 4, 8),
)
"""resolution, base_channels, batch, falling; projected discriminators need 64 px."""
_KIMG_FLOORS: Final = {"kimg": 0.5, "autoencoder_kimg": 0.5, "denoiser_kimg": 2.0}
_LADDERS: Final[dict[str, tuple[int, ...]]] = {
    "seeds": (2, 1),
    "n_fake": (500, 250, 125, 60, 30),
    "n_real": (500, 250, 125, 60, 30),
    "folds": (3, 2, 1),
    "epochs": (20, 15, 10, 6, 4, 2),
    "real_per_class": (250, 125, 60, 30),
    "synthetic_per_class": (1_000, 500, 250, 125, 60),
    "image_size": (128, 64),
    "sampling_steps": (25, 12, 8),
}


def _smaller_size(scale: Scale) -> Scale | None:
    now = scale.resolution, scale.base_channels, scale.batch
    for size in _SIZES:
        if size != now and all(a <= b for a, b in zip(size, now, strict=True)):
            resolution, base_channels, batch = size
            ldm = "ldm-cpu" if resolution < PAPER.resolution else scale.ldm
            return replace(
                scale,
                resolution=resolution,
                base_channels=base_channels,
                batch=batch,
                ldm=ldm,
                recipe_networks=False,
            )
    return None


def _shorter_training(scale: Scale) -> Scale | None:
    changes: dict[str, Any] = {
        name: max(getattr(scale, name) / 2, floor)
        for name, floor in _KIMG_FLOORS.items()
        if getattr(scale, name) > floor
    }
    return replace(scale, **changes) if changes else None


def _fewer_classifiers(scale: Scale) -> Scale | None:
    for name in ("resnext50", "resnet34"):
        if name in scale.classifiers and len(scale.classifiers) > 1:
            return replace(scale, classifiers=tuple(c for c in scale.classifiers if c != name))
    return None


def _down(name: str) -> Callable[[Scale], Scale | None]:
    def step(scale: Scale) -> Scale | None:
        value = next((rung for rung in _LADDERS[name] if rung < getattr(scale, name)), None)
        changes: dict[str, Any] = {name: value}
        return None if value is None else replace(scale, **changes)

    return step


REDUCTIONS: Final[tuple[Callable[[Scale], Scale | None], ...]] = (
    _shorter_training,
    _down("n_fake"),
    _smaller_size,
    _down("seeds"),
    _fewer_classifiers,
    _down("epochs"),
    _down("synthetic_per_class"),
    _down("image_size"),
    _shorter_training,
    _down("n_fake"),
    _down("folds"),
    _down("sampling_steps"),
    _down("n_real"),
)
"""Taken in turns, round and round; None where nothing is left to take."""
LAST_REDUCTIONS: Final = (*REDUCTIONS, _down("real_per_class"))
"""Taken once those save nothing worth while: fewer real images make another experiment."""


def reductions(scale: Scale, cost_s: Callable[[Scale], float]) -> Iterator[tuple[Scale, float]]:
    """Ever cheaper scales and their costs in seconds, `scale` itself first.

    No knob ever rises. What would save less than a fiftieth is left alone while something else saves more.
    """
    cost = cost_s(scale)
    yield scale, cost
    for worth, choices in ((0.02, REDUCTIONS), (0.0, LAST_REDUCTIONS)):
        progress = True
        while progress:
            progress = False
            for reduce in choices:
                smaller = reduce(scale)
                if smaller is None:
                    continue
                smaller_cost = cost_s(smaller)
                if smaller_cost < cost * (1 - worth):
                    scale, cost, progress = smaller, smaller_cost, True
                    yield scale, cost


def with_settings(scale: Scale, settings: Sequence[str]) -> Scale:
    """A copy changed by `name=value`. Raises ConfigInvalidError."""
    from pydantic import TypeAdapter, ValidationError

    known = {field.name: field.type for field in fields(Scale) if field.name not in ("name", "classifiers")}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or name not in known:
            raise ConfigInvalidError(f"--set {setting!r}: write name=value, name one of {', '.join(known)}")
        try:
            value = TypeAdapter(cast("Any", known[name])).validate_python(text)
        except ValidationError as error:
            raise ConfigInvalidError(f"--set {name} {text!r}: {error.errors()[0]['msg']}") from None
        changes: dict[str, Any] = {name: value}
        scale = replace(scale, **changes)
    return scale


def differences(full: Scale, used: Scale, knobs: Sequence[str]) -> list[str]:
    """`seeds 3 -> 1` for every one of `knobs` that was turned."""
    return [
        f"{name} {_text(getattr(full, name))} -> {_text(getattr(used, name))}"
        for name in knobs
        if getattr(full, name) != getattr(used, name)
    ]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
