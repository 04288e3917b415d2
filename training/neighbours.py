"""How much farther from their real neighbours generated images lie than real ones do.

Moments say nothing of single images: a set may have those of the real one with every image beside it. What
is asked here is of each image by itself, and only as long as it lies where real ones are sparse: one that has
as many real neighbours as three real images of four have is left alone: none is drawn onto another, and the
outlying ones that a real set has stay.

Nothing here keeps images from leaving a few real ones for the many. That is for kinds (`training.kinds`): an
image's neighbours are those of its own kind, and of each kind come as many as it has a share.
Source: Kynkaanniemi et al. 2019 and Naeem et al. 2020 (balls around real images, as a measure).
"""

from typing import Final

import torch
from torch import Tensor, nn

NEIGHBOURS: Final = 5
"""The ball of a real image reaches to the fifth nearest other one of its kind."""
ORDINARY: Final = 0.75
"""Of the real images of a kind, the share that lies nearer to others of it than an image is asked to come.
With half of them, a class of few images lost a sixth of its variance."""
SOFTNESS: Final = 0.1
"""Of a ball's squared radius: how much farther one real image may be than another and count for as much."""


class NeighbourDistance(nn.Module):
    """Mean excess of images' distances over what is ORDINARY among real ones; differentiable, zero or more.

    An image's distance is the soft least of its squared distances from the real ones of its kind, each over
    the squared radius of that one's ball. real: features [N, F]; label: [N, T] one-hot, of classes where they
    are not parted. A kind of no more than NEIGHBOURS images asks nothing.
    """

    real: Tensor
    real_label: Tensor
    squared_radius: Tensor
    ordinary: Tensor

    def __init__(self, real: Tensor, label: Tensor) -> None:
        super().__init__()
        radius, ordinary = torch.empty_like(real[:, 0]), torch.empty_like(label[0])
        for kind, column in enumerate(label.t()):
            own = column > 0
            radius[own], ordinary[kind] = _among_themselves(real[own])
        for name, value in (
            ("real", real),
            ("real_label", label),
            ("squared_radius", radius),
            ("ordinary", ordinary),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """features: of generated images, [N, F], with their graph. label: [N, T] one-hot. Scalar."""
        squares = torch.cdist(features, self.real).square() / self.squared_radius
        distance = _soft_least(squares.masked_fill(label @ self.real_label.t() == 0, torch.inf))
        return (distance - self.ordinary[label.argmax(dim=1)]).clamp(min=0).mean()


def _among_themselves(real: Tensor) -> tuple[Tensor, Tensor]:
    """Of the real images of a kind, [N, F]: squared radii of their balls, [N], and their ordinary distance.

    Infinite radii, and no distance, where there are not neighbours enough.
    """
    if len(real) <= NEIGHBOURS:
        return real.new_full((len(real),), torch.inf), real.new_zeros(())
    squares = torch.cdist(real, real).square().fill_diagonal_(torch.inf)
    radius = squares.topk(NEIGHBOURS, dim=1, largest=False).values[:, -1].clamp(min=1e-12)
    return radius, _soft_least(squares / radius).quantile(ORDINARY)


def _soft_least(distances: Tensor) -> Tensor:
    """Of each row [N, M]: below its least, the more the more others are about as small."""
    return -SOFTNESS * torch.logsumexp(-distances / SOFTNESS, dim=1)
