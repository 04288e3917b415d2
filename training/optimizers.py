"""Optimisers of a run: which weights learn at which rate."""

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
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    factors = {name: _lr_factor(name, config) for name in trained}
    groups: list[dict[str, Any]] = [
        {
            "params": [p for name, p in trained.items() if factors[name] == factor],
            "lr": factor * lr,
            "full_lr": factor * lr,
        }
        for factor in sorted(set(factors.values()) or {1.0}, reverse=True)
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


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The state's moments; rates are those of the configuration, which may have changed since."""
    names: tuple[str, ...] = ("lr", "full_lr", "betas", "weight_decay")
    rates = [{n: group[n] for n in names if n in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group.update(rate)
