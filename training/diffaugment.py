"""Differentiable augmentation of everything a discriminator sees. Source: Zhao et al. 2020 (DiffAugment)."""

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from training.errors import ConfigInvalidError

POLICIES: Final = ("color", "translation", "cutout")
TRANSLATION_RATIO: Final = 0.125


class DiffAugment:
    """T of the paper: [N, 3, H, W] in [-1, 1] -> the same shape, differentiable, drawn per image.

    policy: comma list of color, translation, cutout, applied in the order written; '' is the identity.
    color_probability: share of images whose colour changes. cutout_ratio: side of the cut square.
    Raises ConfigInvalidError for an unknown policy.
    """

    def __init__(self, policy: str, *, color_probability: float = 1.0, cutout_ratio: float = 0.5) -> None:
        names = [name.strip() for name in policy.split(",") if name.strip()]
        unknown = [name for name in names if name not in POLICIES]
        if unknown:
            raise ConfigInvalidError(f"augment.policy {unknown[0]!r} is not one of {', '.join(POLICIES)}")
        self.color_probability = color_probability
        self.cutout_ratio = cutout_ratio
        steps: dict[str, Callable[[Tensor, torch.Generator | None], Tensor]] = {
            "color": self._color,
            "translation": translate,
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

    def _cutout(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return cutout(x, generator, self.cutout_ratio)


def color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brightness U(-0.5, 0.5), saturation U(0, 2), contrast U(0.5, 1.5), from draws in [0, 1), each [N, 1, 1, 1]."""
    x = x + (brightness - 0.5)
    gray = x.mean(dim=1, keepdim=True)
    x = (x - gray) * (saturation * 2) + gray
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def translate(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shift by whole pixels, up to an eighth of the side each way, zeros moving in."""
    n, _, h, w = x.shape
    limit_y, limit_x = int(h * TRANSLATION_RATIO + 0.5), int(w * TRANSLATION_RATIO + 0.5)
    dy = _integers(-limit_y, limit_y + 1, n, generator, x)
    dx = _integers(-limit_x, limit_x + 1, n, generator, x)
    padded = F.pad(x, (limit_x, limit_x, limit_y, limit_y))
    rows = (dy + limit_y)[:, None] + torch.arange(h, device=x.device)  # [N, H]
    columns = (dx + limit_x)[:, None] + torch.arange(w, device=x.device)  # [N, W]
    batch = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, generator: torch.Generator | None = None, ratio: float = 0.5) -> Tensor:
    """Set a square of side `ratio` to zero, centred anywhere, clipped at the border."""
    n, _, h, w = x.shape
    keep = torch.ones(n, h, w, dtype=torch.bool, device=x.device)
    inside = []
    for side in (h, w):
        length = int(side * ratio + 0.5)
        centre = _integers(0, side + (1 - length % 2), n, generator, x)
        start = centre - length // 2
        position = torch.arange(side, device=x.device)
        inside.append((position >= start[:, None]) & (position < start[:, None] + length))  # [N, side]
    keep = ~(inside[0][:, :, None] & inside[1][:, None, :])
    return x * keep[:, None]


def _uniform(n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator, device=like.device, dtype=like.dtype)


def _integers(low: int, high: int, n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    return torch.randint(low, high, (n,), generator=generator, device=like.device)
