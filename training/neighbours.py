"""How much farther from their real neighbours generated images lie than real ones do.

Moments say nothing of single images: a set may have those of the real one with every image beside it. What
is asked here is of each image by itself, and only as long as it lies where real ones are sparse: one that has
as many real neighbours as a typical real image has is left alone, so that none is drawn onto another.

Without more, images would leave the kinds that few real ones are of for the kind that many are of. So a real
image has a price, which rises while more generated images come to it than its share and falls while fewer do:
the dual of a transport that serves each real image alike.
Source: Kynkaanniemi et al. 2019 and Naeem et al. 2020 (balls around real images, as a measure); Genevay et
al. 2016 (prices, followed stochastically).
"""

from typing import Final

import torch
from torch import Tensor, nn

NEIGHBOURS: Final = 5
"""The ball of a real image reaches to the fifth nearest other one of its class."""
SOFTNESS: Final = 0.1
"""Of a ball's squared radius: how much farther one real image may be than another and count for as much."""
PRICE_WINDOW: Final = 16
"""Images of a class during which a real image that none comes to loses one SOFTNESS of its price."""
MAX_PRICE: Final = 5.0
"""And least, below zero, in squared radii of balls."""


class NeighbourDistance(nn.Module):
    """Mean excess of images' distances over that of the median real one; differentiable, zero or more.

    An image's distance is the soft least of its squared distances from the real ones of its class, each over
    the squared radius of that one's ball, chosen by these and the prices together. real: features [N, F];
    label: [N, K] one-hot. A class of no more than NEIGHBOURS images asks nothing.
    """

    real: Tensor
    real_label: Tensor
    squared_radius: Tensor
    typical: Tensor
    price: Tensor

    def __init__(self, real: Tensor, label: Tensor) -> None:
        super().__init__()
        squares = torch.cdist(real, real).square()
        apart = (label @ label.t() == 0) | torch.eye(len(real), dtype=torch.bool, device=real.device)
        count = min(NEIGHBOURS, len(real))
        nearest = squares.masked_fill(apart, torch.inf).topk(count, dim=1, largest=False).values
        radius = nearest[:, -1].clamp(min=1e-12)  # infinite where there are not as many
        distance = _soft_least((squares / radius).masked_fill(apart, torch.inf))
        typical = torch.stack([distance[of > 0].median() for of in label.t()])
        for name, value in (
            ("real", real),
            ("real_label", label),
            ("squared_radius", radius),
            ("typical", typical),
        ):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("price", torch.zeros_like(radius))

    @torch.no_grad()
    def observe(self, features: Tensor, label: Tensor) -> None:
        """Follow with the prices where generated features [N, F] of labels [N, K] come."""
        came = torch.softmax(-(self._distances(features, label) + self.price) / SOFTNESS, dim=1).sum(dim=0)
        due = self.real_label @ (label.sum(dim=0) / self.real_label.sum(dim=0).clamp(min=1))
        size = self.real_label @ self.real_label.sum(dim=0)
        self.price += SOFTNESS / PRICE_WINDOW * (came - due) * size
        self.price.clamp_(-MAX_PRICE, MAX_PRICE)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """features: of generated images, [N, F], with their graph. label: [N, K] one-hot. Scalar."""
        asked = self._distances(features, label) + self.price
        paid = torch.softmax(-asked.detach() / SOFTNESS, dim=1) @ self.price
        return (_soft_least(asked) - paid - self.typical[label.argmax(dim=1)]).clamp(min=0).mean()

    def _distances(self, features: Tensor, label: Tensor) -> Tensor:
        """Squared, over the squared radii, [N, real images]; infinite from those of other classes."""
        squares = torch.cdist(features, self.real).square() / self.squared_radius
        return squares.masked_fill(label @ self.real_label.t() == 0, torch.inf)


def _soft_least(distances: Tensor) -> Tensor:
    """Of each row [N, M]: below its least, the more the more others are about as small."""
    return -SOFTNESS * torch.logsumexp(-distances / SOFTNESS, dim=1)
