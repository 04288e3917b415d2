"""Classes drawn by networks of their own: one generator, of several experts.

A network that is taught on draws all its classes otherwise afterwards. Where only some are to change, those
get an expert and the others keep theirs: their images of the same latents stay what they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from model_store.generators.registry import Generator

ARCHITECTURES: Final = ("masan", "cellgan")
"""Of which experts may be."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """One expert in a manifest: its network, and the positions of the classes it is asked for.

    Raises ValueError for an architecture that no expert may have.
    """

    architecture: str
    config: Mapping[str, Any]
    classes: Sequence[int]

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"expert's architecture {self.architecture!r} is not {' or '.join(ARCHITECTURES)}"
            )


def draw_by_class(
    experts: Sequence[Generator], classes: Sequence[Sequence[int]], z: Tensor, label: Tensor
) -> Tensor:
    """z [N, Z], label [N, K] one-hot -> images [N, 3, R, R] in [-1, 1], each by the expert of its class.

    classes: each expert's, positions among K. An expert takes the first numbers of the latent, as many as it
    needs. It draws the whole batch if any image of it is one of its own, so that none depends on the others.
    """
    images: Tensor | None = None
    for expert, of_expert in zip(experts, classes, strict=True):
        own = label[:, list(of_expert)].sum(dim=1) > 0  # [N]
        if not bool(own.any()):
            continue
        drawn = expert(z[:, : expert.latent_dim], label)
        images = drawn if images is None else torch.where(own[:, None, None, None], drawn, images)
    return images if images is not None else experts[0](z[:, : experts[0].latent_dim], label)


class ExpertsGenerator(nn.Module):
    """z [N, Z], label [N, K] one-hot -> images [N, 3, R, R] in [-1, 1].

    Z is the largest of the experts'. Raises ValueError unless every class has one expert, every expert a
    class, and all draw as many classes at the same size.
    """

    def __init__(self, experts: Sequence[nn.Module], classes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        if not experts:
            raise ValueError("experts is empty")
        self.experts = nn.ModuleList(experts)
        self.classes = tuple(tuple(of_expert) for of_expert in classes)
        networks = self.networks
        self.class_count, self.resolution = networks[0].class_count, networks[0].resolution
        self.latent_dim = max(network.latent_dim for network in networks)
        for index, network in enumerate(networks):
            if (network.class_count, network.resolution) != (self.class_count, self.resolution):
                raise ValueError(
                    f"experts[{index}] draws {network.class_count} classes at {network.resolution} px, the"
                    f" first one {self.class_count} at {self.resolution}"
                )
        of_all = sorted(index for of_expert in self.classes for index in of_expert)
        if of_all != list(range(self.class_count)) or not all(self.classes):
            shown = [list(of_expert) for of_expert in self.classes]
            raise ValueError(f"experts' classes {shown} are not each of 0..{self.class_count - 1} once")

    @property
    def networks(self) -> list[Generator]:
        """The experts."""
        return [cast("Generator", expert) for expert in self.experts]

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return draw_by_class(self.networks, self.classes, z, label)
