"""Classes of several kinds of images: which of its class's kinds an image is of, in fixed shares."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor, nn

CHOICE_NUMBERS: Final = 2
"""Numbers of the latent that choose."""
SHORTEST: Final = 1e-30
"""Of two numbers that are both zero, so that they choose a kind too."""
Shares = tuple[tuple[float, ...], ...]
"""Of each class's kinds among its images; the numbers of a class sum to one."""


class KindChoice(nn.Module):
    """choice [N, 2], label [N, K] one-hot -> kind [N, T] one-hot: of the T kinds of all classes, in order.

    The direction of the two numbers chooses: of normal ones each is as likely, and a truncated latent, which
    is a shorter one, is of the same kind. Nothing here is learned, or stored with the weights.
    Source: Liu et al. 2020 (clusters of real images as what a generator is told).
    """

    class_of_kind: Tensor
    first: Tensor
    last: Tensor

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        bounds = [_bounds(of_class) for of_class in shares]
        classes = [k for k, of_class in enumerate(shares) for _ in of_class]
        self.class_count, self.kind_count = len(shares), len(classes)
        self.register_buffer("class_of_kind", torch.tensor(classes), persistent=False)
        self.register_buffer("first", torch.cat([b[:-1] for b in bounds]), persistent=False)  # [T]
        self.register_buffer("last", torch.cat([b[1:] for b in bounds]), persistent=False)

    def forward(self, choice: Tensor, label: Tensor) -> Tensor:
        along, across = choice.split(1, dim=1)
        turn = _turn(along, across)  # [N, 1]
        return label[:, self.class_of_kind] * ((turn >= self.first) & (turn < self.last))

    def class_label(self, kind: Tensor) -> Tensor:
        """The classes of kinds [N, T] one-hot: [N, K] one-hot."""
        return kind.new_zeros(len(kind), self.class_count).index_add(1, self.class_of_kind, kind)


def check_shares(shares: Shares, class_count: int) -> None:
    """Raises ValueError for shares that are not of so many classes, not above zero, or not a whole."""
    if len(shares) != class_count:
        raise ValueError(f"kind_shares are of {len(shares)} classes, not of {class_count}")
    for index, of_class in enumerate(shares):
        if not of_class or min(of_class) <= 0 or not math.isclose(sum(of_class), 1, abs_tol=1e-4):
            raise ValueError(f"kind_shares of class {index} {of_class} are not above 0 with a sum of 1")


def _bounds(shares: Sequence[float]) -> Tensor:
    """Where each kind's directions begin, and the last one's end, [kinds + 1]."""
    inner = torch.tensor(list(accumulate(shares))[:-1], dtype=torch.float64)
    angles = math.pi * (2 * inner - 1)
    return torch.cat([torch.tensor([-3.0]), _turn(angles.cos(), angles.sin()).float(), torch.tensor([3.0])])


def _turn(along: Tensor, across: Tensor) -> Tensor:
    """Grows with the angle from -pi to pi, from -2 to 2, without a trigonometric function."""
    length = (along.abs() + across.abs()).clamp(min=SHORTEST)
    return across.sign() * (1 - along / length)
