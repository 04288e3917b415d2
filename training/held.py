"""Classes that a run leaves as they are: it teaches the others, and a publication has an expert for either.

A generator is one for all its classes, and what teaches it one moves the others too. Classes that are good
enough can be held: no image of theirs is drawn while the others learn, and what is published draws them with
the networks that the run began from (`model_store.generators.experts`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from model_store.generators.experts import ExpertConfig, ExpertsGenerator
from model_store.generators.kinds import Shares
from model_store.generators.registry import build_generator
from training.config import TrainConfig
from training.errors import ConfigInvalidError
from training.folding import fold_generator, generator_config

EXPERTS: Final = "experts"
"""The architecture of what has several."""


def held_positions(held: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """`data.held_classes` among the data's. Raises ConfigInvalidError for another, or for all of them."""
    if unknown := set(held) - set(classes):
        raise ConfigInvalidError(f"data.held_classes {min(unknown)}: the classes are {', '.join(classes)}")
    if held and set(held) == set(classes):
        raise ConfigInvalidError(f"data.held_classes {', '.join(held)}: no class is left to learn")
    return tuple(index for index, name in enumerate(classes) if name in held)


def classes_of_batch(size: int, class_count: int, held: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The class of each image of a batch and how many of it came before, int64 [N] both.

    All classes but those held are as frequent.
    """
    place = torch.arange(size)
    taught = torch.tensor([index for index in range(class_count) if index not in held])
    return taught[place % len(taught)], place // len(taught)


def held_experts(experts: Sequence[tuple[ExpertConfig, Any]], held: Sequence[int]) -> list[dict[str, Any]]:
    """What a run keeps of the experts it began from, for `published_generator` to draw the classes held."""
    return [
        {
            "architecture": expert.architecture,
            "config": dict(expert.config),
            "classes": own,
            "weights": {name: value.detach().clone() for name, value in network.state_dict().items()},
        }
        for expert, network in experts
        if (own := [index for index in expert.classes if index in held])
    ]


def published_generator(
    config: TrainConfig,
    class_count: int,
    parameters: Mapping[str, Tensor],
    singular_vectors: Mapping[str, Tensor],
    kind_shares: Shares,
    held: Sequence[Mapping[str, Any]],
) -> tuple[nn.Module, str, dict[str, Any]]:
    """`fold_generator` and the experts held: a network, its architecture and config."""
    taught = fold_generator(config, class_count, parameters, singular_vectors, kind_shares)
    return _with_held(taught, generator_config(config, class_count, kind_shares), held)


def _with_held(
    taught: nn.Module, config: dict[str, Any], held: Sequence[Mapping[str, Any]]
) -> tuple[nn.Module, str, dict[str, Any]]:
    """What a run publishes: its network and the experts it held, as a network, its architecture and config.

    taught: a plain MASAN generator, of these arguments, and the only one where nothing is held.
    """
    if not held:
        return taught, "masan", config
    kept = {index for expert in held for index in expert["classes"]}
    others = [index for index in range(config["class_count"]) if index not in kept]
    parts = [*held, {"architecture": "masan", "config": config, "classes": others}]
    networks = [*map(_network, held), taught]
    fields = ("architecture", "config", "classes")
    return (
        ExpertsGenerator(networks, [part["classes"] for part in parts]),
        EXPERTS,
        {EXPERTS: [{field: part[field] for field in fields} for part in parts]},
    )


def _network(expert: Mapping[str, Any]) -> nn.Module:
    network = build_generator(expert["architecture"], expert["config"])
    network.load_state_dict(cast("dict[str, Any]", expert["weights"]))
    return network.eval().requires_grad_(False)
