"""Where a run begins when it does not begin from nothing: a smaller run, or a published checkpoint."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from model_store.generators.kinds import Shares
from training.errors import RunInvalidError
from training.folding import EXPORT_POWER_ITERATIONS
from training.held import held_experts
from training.kinds import counts_of
from training.loop import Trainer
from training.optimizers import CORRECTION_GAIN, load_moments
from training.origin import Origin

CLASS_INPUT: Final = "mapping.layers.0.weight"
"""The generator's only parameter whose meaning depends on the order of the classes."""
KIND_INPUT: Final = "mapping.kind.weight"
"""The same of their kinds."""


def grow_from(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Start from a run at half the resolution: its averaged weights, and a correction of zero on top.

    Raises RunInvalidError if the state is of other classes, or the networks do not fit.
    """
    trainer.check_classes(state)
    smaller = dict(state["G_ema"])
    own = dict(trainer.G.named_parameters())
    if "to_rgb_half.weight" not in own:
        raise RunInvalidError("growing needs generator.rgb_skip=true")
    smaller["to_rgb_half.weight"] = smaller.pop("to_rgb.weight")
    if unfit := _unfit(smaller, own):
        raise RunInvalidError(f"{unfit[0]} of the smaller generator does not fit this one")
    _start_with(trainer, smaller, silent=(CORRECTION_GAIN,))
    trainer.images_seen = state["images_seen"]
    trainer.images_at_start = trainer.images_seen
    trainer.seconds_trained = state["seconds_trained"]


def start_from(trainer: Trainer, origin: Origin) -> bool:
    """Start from a published checkpoint: its weights, and nothing of what it lacks.

    Whether discriminators that it kept go on: they do if they are of these classes and settings.

    What a checkpoint of other classes knew of them starts anew; kinds that it did not tell apart start alike;
    noise and refinements that it did not have start silent.
    Raises RunInvalidError if the networks do not fit, or classes are to be held that it does not have.
    """
    if trainer.held and origin.manifest.classes != trainer.classes:
        raise RunInvalidError(f"data.held_classes: {origin.manifest.reference} is of other classes")
    trainer.held_experts = held_experts(origin.experts, trainer.held)
    weights = dict(origin.weights)
    if origin.manifest.classes != trainer.classes:
        del weights[CLASS_INPUT]
    if origin.manifest.classes != trainer.classes or counts_of(origin.kind_shares) != trainer.kind_counts:
        _forget_kinds(weights, origin.kind_shares)
    own = dict(trainer.G.named_parameters())
    lacking = [name for name in own if name not in weights and name != CLASS_INPUT]
    silent = [name for name in lacking if "noise" in name or name == KIND_INPUT]
    fresh = [name for name in lacking if name.startswith("refine.")]
    unfit = [*_unfit(weights, own), *(name for name in lacking if name not in (*silent, *fresh))]
    if unfit:
        raise RunInvalidError(f"{min(unfit)} of {origin.manifest.reference} does not fit this generator")
    enlarged = {name: _at_fresh_norm(trainer, name, value) for name, value in weights.items()}
    _start_with(trainer, enlarged, silent)
    trainer.images_seen = origin.manifest.training.images_seen
    trainer.images_at_start = trainer.images_seen
    trainer.seconds_trained = 3600 * origin.manifest.training.hours
    return _take_kept_discriminators(trainer, origin)


def _forget_kinds(weights: dict[str, Tensor], shares: Shares) -> None:
    """Leave of what the generator was told of kinds what all of a class's kinds have in common."""
    of_kinds = weights.pop(KIND_INPUT, None)
    if of_kinds is None or CLASS_INPUT not in weights:
        return
    own = of_kinds.split(list(counts_of(shares)), dim=1)
    common = torch.stack(
        [part @ part.new_tensor(share) for part, share in zip(own, shares, strict=True)], dim=1
    )
    weights[CLASS_INPUT] = weights[CLASS_INPUT].clone()
    weights[CLASS_INPUT][:, : len(shares)] += common


def take_discriminators(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Go on with the discriminators of another run, and the moments of their optimiser.

    Raises RunInvalidError if they are of other classes or settings.
    """
    trainer.check_classes(state)
    try:
        trainer.discriminators().load_state_dict(state["D"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunInvalidError(f"the run's discriminators are not this run's: {reason}") from error
    load_moments(trainer.optimizer_D, state["optimizer_D"])


def _take_kept_discriminators(trainer: Trainer, origin: Origin) -> bool:
    """Go on with those a checkpoint kept; whether it did, and they are of these classes and settings."""
    own = trainer.discriminators()
    if origin.discriminators is None or origin.manifest.classes != trainer.classes:
        return False
    expected = {name: value for name, value in own.state_dict().items() if isinstance(value, Tensor)}
    trained = {name for name, parameter in own.named_parameters() if parameter.requires_grad}
    if _unfit(origin.discriminators, expected) or not trained <= origin.discriminators.keys():
        return False
    own.load_state_dict(origin.discriminators, strict=False)
    return True


@torch.no_grad()
def _at_fresh_norm(trainer: Trainer, name: str, weight: Tensor) -> Tensor:
    """A folded weight that spectral norm divides, enlarged to the Frobenius norm of a fresh network's.

    Its scale changes no image then, only how far a learning rate moves it: folded, weights of few large
    singular values are four times smaller than fresh ones, and would be shaken by rates that suit those.
    """
    if name not in trainer.normalize_G.names:
        return weight
    fresh, folded = trainer.G.get_parameter(name).norm(), weight.norm()
    enlarged: Tensor = weight * (fresh / folded).clamp(min=1)
    return enlarged if folded > 0 else weight


@torch.no_grad()
def _start_with(trainer: Trainer, weights: Mapping[str, Tensor], silent: Iterable[str]) -> None:
    """Take `weights` into the generator and its average, and zero for the parameters named `silent`."""
    own = dict(trainer.G.named_parameters())
    for name, value in weights.items():
        own[name].copy_(value)
    for name in silent:
        own[name].zero_()
    trainer.normalize_G(own, iterations=EXPORT_POWER_ITERATIONS)
    for name, parameter in own.items():
        trainer.G_ema[name].copy_(parameter)


def _unfit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that the network does not have, or in another shape."""
    return [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
