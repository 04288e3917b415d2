"""Spectral normalisation as a function of the parameters.

The networks are plain; training runs them on W / sigma(W) with `torch.func.functional_call`. One power
iteration is made per optimiser step, however often the network runs in it, and what is exported are plain
weights. Source: Miyato et al. 2018.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS: Final = 1e-4


class SpectralNorm(nn.Module):
    """Divides the named weights of `module` by their largest singular value, estimated in float32.

    Only the left singular vectors are kept; the right ones follow from them, half an iteration ahead.
    Weights of transposed convolutions are stored input first; `transposed` names those.
    """

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        parameters = dict(module.named_parameters())
        self.names = tuple(names)
        self.transposed = {
            f"{name}.weight"
            for name, child in module.named_modules()
            if isinstance(child, nn.ConvTranspose2d)
        }
        for name in self.names:
            rows = self._matrix(name, parameters[name]).shape[0]
            self.register_buffer(_buffer(name), F.normalize(torch.randn(rows), dim=0, eps=EPS))

    def forward(self, parameters: Mapping[str, Tensor], *, iterations: int = 1) -> dict[str, Tensor]:
        """All parameters, the named ones normalised. iterations: power iterations to make first, in place."""
        normalized = dict(parameters)
        for name in self.names:
            weight = parameters[name]
            normalized[name] = weight / self._sigma(name, weight, iterations)
        return normalized

    def _sigma(self, name: str, weight: Tensor, iterations: int) -> Tensor:
        matrix = self._matrix(name, weight).float()
        u: Tensor = getattr(self, _buffer(name))
        with torch.no_grad():
            v = F.normalize(matrix.t() @ u, dim=0, eps=EPS)
            for _ in range(iterations):
                u.copy_(F.normalize(matrix @ v, dim=0, eps=EPS))
                v = F.normalize(matrix.t() @ u, dim=0, eps=EPS)
        return torch.dot(u.clone(), matrix @ v)

    def _matrix(self, name: str, weight: Tensor) -> Tensor:
        if name in self.transposed:
            weight = weight.transpose(0, 1)
        return weight.flatten(1)


def _buffer(name: str) -> str:
    return "u_" + name.replace(".", "__")


def spectral_weights(module: nn.Module, *, exclude: tuple[str, ...] = ()) -> list[str]:
    """Weights of all convolutions and linear layers whose names contain no part of `exclude`."""
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return [
        f"{name}.weight"
        for name, child in module.named_modules()
        if isinstance(child, layers) and not any(part in name for part in exclude)
    ]


def initialize(module: nn.Module, gain: float, *, exclude: tuple[str, ...] = ()) -> None:
    """Xavier-normal weights with `gain` and zero biases, as the backbone does with gain 0.02."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not name.startswith(exclude):
            nn.init.xavier_normal_(child.weight, gain)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
