"""Differentiable augmentation of everything a discriminator sees. Source: Zhao et al. 2020 (DiffAugment)."""

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor

from training.errors import ConfigInvalidError
from training.image_random import draw_for_images

POLICIES: Final = ("color", "translation", "cutout")
TranslationFill = Literal["zeros", "reflect"]


class DiffAugment:
    """T of the paper: [N, 3, H, W] in [-1, 1] -> the same shape, differentiable, drawn per image.

    policy: comma list of color, translation, cutout, applied in the order written; '' is the identity.
    color_probability, translation_probability: share of images that change. cutout_ratio: side of the cut
    square. translation_ratio: share of its side that an image moves by at most. translation_fill: what moves
    in, see `translate`. Raises ConfigInvalidError for an unknown policy.
    """

    def __init__(
        self,
        policy: str,
        *,
        color_probability: float = 1.0,
        cutout_ratio: float = 0.5,
        translation_probability: float = 1.0,
        translation_ratio: float = 0.125,
        translation_fill: TranslationFill = "zeros",
    ) -> None:
        names = [name.strip() for name in policy.split(",") if name.strip()]
        unknown = [name for name in names if name not in POLICIES]
        if unknown:
            raise ConfigInvalidError(f"augment.policy {unknown[0]!r} is not one of {', '.join(POLICIES)}")
        self.color_probability = color_probability
        self.cutout_ratio = cutout_ratio
        self.translation_probability = translation_probability
        self.translation_ratio = translation_ratio
        self.translation_fill: TranslationFill = translation_fill
        steps: dict[str, Callable[[Tensor, torch.Generator | None], Tensor]] = {
            "color": self._color,
            "translation": self._translation,
            "cutout": self._cutout,
        }
        self.steps = [steps[name] for name in names]

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        for step in self.steps:
            x = step(x, generator)
        return x

    def _color(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        n = x.shape[0]
        changed = color(x, _uniform(n, generator, x), _uniform(n, generator, x), _uniform(n, generator, x))
        chosen = _uniform(n, generator, x) < self.color_probability
        return torch.where(chosen, changed, x)

    def _translation(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        limits = [int(side * self.translation_ratio + 0.5) for side in x.shape[2:]]
        dy, dx = (_integers(-limit, limit + 1, x, generator) for limit in limits)
        if self.translation_probability < 1:
            chosen = _uniform(x.shape[0], generator, x)[:, 0, 0, 0] < self.translation_probability
            dy, dx = dy * chosen, dx * chosen
        return translate(x, dy, dx, self.translation_fill)

    def _cutout(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        sizes = [int(side * self.cutout_ratio + 0.5) for side in x.shape[2:]]
        # An even square has its centre between pixels, so there is one place more.
        ends = [side + 1 - size % 2 for side, size in zip(x.shape[2:], sizes, strict=True)]
        y, x_centre = (_integers(0, end, x, generator) for end in ends)
        return cutout(x, y, x_centre, sizes[0], sizes[1])


def color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brightness by -0.5..0.5, saturation times 0..2, contrast times 0.5..1.5, not clamped afterwards.

    brightness, saturation, contrast: draws in [0, 1), [N, 1, 1, 1]; 0.5 changes nothing.
    """
    x = x + (brightness - 0.5)
    gray = x.mean(dim=1, keepdim=True)
    x = (x - gray) * (saturation * 2) + gray
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def translate(x: Tensor, dy: Tensor, dx: Tensor, fill: TranslationFill = "zeros") -> Tensor:
    """Show each image from (dy, dx) pixels further down and right.

    dy, dx: int64 [N], less than the side either way. fill: what moves in. `zeros`, as published, is a hard
    edge beside all that was at the border, so that a discriminator hardly sees flaws there; `reflect` mirrors
    the image at its border, which shows them as often again.
    """
    n, _, h, w = x.shape
    rows = dy[:, None] + torch.arange(h, device=x.device)  # [N, H]
    columns = dx[:, None] + torch.arange(w, device=x.device)  # [N, W]
    shown_rows, shown_columns = _mirrored(rows, h), _mirrored(columns, w)
    batch = torch.arange(n, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[batch, shown_rows[:, :, None], shown_columns[:, None, :]].permute(
        0, 3, 1, 2
    )
    if fill == "reflect":
        return moved
    inside = (shown_rows == rows)[:, :, None] & (shown_columns == columns)[:, None, :]  # [N, H, W]
    return moved * inside[:, None]


def _mirrored(positions: Tensor, side: int) -> Tensor:
    """Positions less than a side beyond the border, mirrored at the last pixel, which is not repeated."""
    return (side - 1) - ((side - 1) - positions.abs()).abs()


def cutout(x: Tensor, centre_y: Tensor, centre_x: Tensor, height: int, width: int) -> Tensor:
    """Set a rectangle to zero in each image, clipped at the border. centre_y, centre_x: int64 [N]."""
    inside = []
    for side, centre, size in ((x.shape[2], centre_y, height), (x.shape[3], centre_x, width)):
        start = (centre - size // 2)[:, None]
        position = torch.arange(side, device=x.device)
        inside.append((position >= start) & (position < start + size))  # [N, side]
    cut = inside[0][:, :, None] & inside[1][:, None, :]  # [N, H, W]
    return x * ~cut[:, None]


def _uniform(n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    return draw_for_images(
        n,
        generator,
        lambda m, source: torch.rand(m, 1, 1, 1, generator=source, device=like.device, dtype=like.dtype),
    )


def _integers(low: int, high: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """One draw per image, `high` excluded: int64 [N]."""
    return draw_for_images(
        like.shape[0],
        generator,
        lambda m, source: torch.randint(low, high, (m,), generator=source, device=like.device),
    )
