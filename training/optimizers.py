"""Optimisers of a run: which weights learn at which rate."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import nn

from training.config import TrainConfig

CORRECTION_GAIN: Final = "correction_gain"
GAIN_LR_FACTOR: Final = 10.0
"""Adam moves a number by its rate a step at most: at that of the weights, a grown generator's gain on its
finer half would take 5,000 steps from zero to one."""


def make_optimizer(module: nn.Module, lr: float, config: TrainConfig) -> torch.optim.Optimizer:
    """The configured one, for all that `module` trains; `full_lr` of a group is its rate without schedule."""
    groups: list[dict[str, Any]] = [
        {
            "params": [module.get_parameter(name) for name in names],
            "lr": factor * lr,
            "full_lr": factor * lr,
        }
        for factor, names in _groups(module, config).items()
    ]
    if config.optimizer.kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, fused=True)
    betas = (config.optimizer.beta1, config.optimizer.beta2)
    return torch.optim.Adam(groups, lr=lr, betas=betas, fused=True)


def _lr_factor(name: str, config: TrainConfig) -> float:
    if name == CORRECTION_GAIN:
        return GAIN_LR_FACTOR
    if name.startswith("mapping.kind."):
        return config.optimizer.kind_lr_factor
    if name.startswith("refine.") or ".noise." in name:
        return config.optimizer.added_lr_factor
    return 1.0


def load_moments(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], places: Sequence[int] | None = None
) -> None:
    """The state's moments; groups and their rates are the configuration's, which may have changed since.

    places: of each weight, see `places_when_saved`; None where they are as they were. Raises ValueError if
    the state is of another number of weights.
    """
    own = optimizer.state_dict()
    counts = [sum(len(group["params"]) for group in of["param_groups"]) for of in (state, own)]
    if counts[0] != counts[1]:
        raise ValueError(f"moments of {counts[0]} weights do not fit {counts[1]}")
    saved = range(counts[0]) if places is None else places
    moments = {now: state["state"][place] for now, place in enumerate(saved) if place in state["state"]}
    optimizer.load_state_dict({**own, "state": moments})


def places_when_saved(module: nn.Module, saved: TrainConfig, config: TrainConfig) -> list[int]:
    """For each weight of an optimiser under `config`, its place in one under `saved`.

    A state knows weights by their place among all groups, and another factor makes other groups.
    """
    before = {name: place for place, name in enumerate(_in_order(module, saved))}
    return [before[name] for name in _in_order(module, config)]


def _groups(module: nn.Module, config: TrainConfig) -> dict[float, list[str]]:
    """Names of what is trained, by the factor of its rate, largest first; if nothing is, one empty group."""
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    factors = sorted({_lr_factor(name, config) for name in names} or {1.0}, reverse=True)
    return {factor: [name for name in names if _lr_factor(name, config) == factor] for factor in factors}


def _in_order(module: nn.Module, config: TrainConfig) -> list[str]:
    return [name for names in _groups(module, config).values() for name in names]
