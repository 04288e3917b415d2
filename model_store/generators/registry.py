"""Architectures by name: the only place that turns a manifest's words into a network."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from model_store.errors import ArchitectureUnsupportedError
from model_store.generators.experts import ExpertConfig, ExpertsGenerator
from model_store.generators.ldm import LdmConfig, LdmGenerator
from model_store.generators.masan import MasanConfig, MasanGenerator


@runtime_checkable
class Generator(Protocol):
    """What sampling needs of a network."""

    latent_dim: int
    class_count: int
    resolution: int

    def __call__(self, z: Tensor, label: Tensor) -> Tensor:
        """z [N, Z], label [N, K] one-hot -> images [N, 3, H, W] in [-1, 1]."""
        ...


def _masan(config: Mapping[str, Any]) -> nn.Module:
    values = dict(config)
    for name in ("attention_resolutions", "noise_resolutions", "refine_resolutions"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    values["kind_shares"] = tuple(map(tuple, values.get("kind_shares", ())))
    return MasanGenerator(MasanConfig(**values))


def _cellgan(config: Mapping[str, Any]) -> nn.Module:
    return _masan({"attention_sites": "none", **config})


def _ldm(config: Mapping[str, Any]) -> nn.Module:
    if importlib.util.find_spec("diffusers") is None:
        raise ArchitectureUnsupportedError("ldm", tuple(a for a in ARCHITECTURES if a != "ldm"))
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return LdmGenerator(LdmConfig(**values))


def _experts(config: Mapping[str, Any]) -> nn.Module:
    experts = [ExpertConfig(**part) for part in config.get("experts", ())]
    networks = [build_generator(expert.architecture, expert.config) for expert in experts]
    return ExpertsGenerator(networks, [expert.classes for expert in experts])


_BUILDERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "masan": _masan,
    "cellgan": _cellgan,
    "ldm": _ldm,
    "experts": _experts,
}
ARCHITECTURES = tuple(_BUILDERS)


def build_generator(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """A generator with fresh weights.

    Raises ArchitectureUnsupportedError for an unknown name, ValueError or TypeError for a config that
    does not fit the architecture.
    """
    if architecture not in _BUILDERS:
        raise ArchitectureUnsupportedError(architecture, ARCHITECTURES)
    return _BUILDERS[architecture](config)
