"""What a configuration will cost: parameters, FLOPs and memory of a step that is traced, not run."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from training.adversaries import PixelAdversary, ProjectedAdversary
from training.config import TrainConfig
from training.data import Dataset
from training.hardware import Choice
from training.loop import Trainer

P = ParamSpec("P")
R = TypeVar("R")
CPU_SHARE: Final = 0.25
"""Images/s of a run over what its FLOPs would allow at the calibration's rate: the rest is element-wise work.
Measured with preset `cpu` on two threads of an EPYC with AVX-512: 18.8 images/s."""
GPU_SHARE: Final = 0.25
"""The same guess for a GPU, whose convolutions leave memory traffic a larger part. Not measured."""
H100_FLOPS: Final = 989e12
"""Dense bfloat16 peak of an H100 SXM, from its data sheet."""
H100_SHARE: Final = 0.05
"""Of the peak; the networks' many maps of 32 to 64 channels are bound by memory. Not measured."""


@dataclass(frozen=True)
class Cost:
    """A training step in numbers. FLOPs are those of convolutions and products, a multiply-add being two.

    parameters: what each network trains; frozen_parameters: feature networks a discriminator or a distance
    stands on.
    generator_flops, discriminator_flops: one forward of one image. step_flops: all that a training step does
    per image, lazy terms at their share. memory_bytes: peak of tensors, dataset left out.
    """

    generator_parameters: int
    discriminator_parameters: int
    frozen_parameters: int
    generator_flops: float
    discriminator_flops: float
    step_flops: float
    memory_bytes: int


def measure_cost(config: TrainConfig, class_count: int) -> Cost:
    """Build the networks and trace a step with tensors that have a shape and no content.

    Decides first, by timing, what the configuration leaves to the device.
    """
    any_classes = replace(config.data, held_classes=())  # which are held changes nothing of a step's cost
    config = replace(config, data=any_classes, run=replace(config.run, compile=False))
    trainer = Trainer(config, blank_dataset(config, class_count))
    trainer.warmup_left = 0  # most steps are not of those in which the generator waits
    discriminators = nn.ModuleList(adversary.module for adversary in trainer.adversaries)
    frozen: list[nn.Module] = [a.features for a in trainer.adversaries if isinstance(a, ProjectedAdversary)]
    if trainer.frechet is not None:
        frozen += trainer.frechet.trunks
    batch = config.optimizer.batch
    with FakeTensorMode(allow_non_fake_inputs=True):
        parts = _Parts(trainer)
        full = _Meter()
        with full:
            trainer.step()  # the first step has R1, if there is any
        forward = parts.flops()
        spared = _r1_flops(trainer) * (1 - 1 / config.losses.r1_every)
    return Cost(
        generator_parameters=_count(trainer.G),
        discriminator_parameters=_count(discriminators),
        frozen_parameters=sum(p.numel() for network in frozen for p in network.parameters()),
        generator_flops=forward[0] / batch,
        discriminator_flops=forward[1] / batch,
        step_flops=(full.flops - spared) / batch,
        memory_bytes=full.peak_bytes + _state_bytes(trainer, discriminators),
    )


def estimated_rate(cost: Cost, device: torch.device, choice: Choice) -> float:
    """Images/s of a whole run, estimated from what a convolution reached there."""
    share = GPU_SHARE if device.type == "cuda" else CPU_SHARE
    return share * choice.flops_per_second / cost.step_flops


class _Parts:
    """Meters around what runs forward only: the generator, frozen features, discriminators in G's loss."""

    def __init__(self, trainer: Trainer) -> None:
        self.generator, self.images, self.pairs = _Meter(), _Meter(), _Meter()
        trainer.generate = _metered(trainer.generate, self.generator)
        for adversary in trainer.adversaries:
            # Features and their heads see real and generated images, the pixel network only the latter.
            heads = self.pairs if isinstance(adversary, ProjectedAdversary) else self.images
            observe = _metered(adversary.observe, self.pairs)
            loss = _metered(adversary.generator_loss, heads)
            vars(adversary).update(observe=observe, generator_loss=loss)

    def flops(self) -> tuple[float, float]:
        """Of a batch's forward: generator, discriminators."""
        return self.generator.flops, self.images.flops + self.pairs.flops / 2


def _metered(function: Callable[P, R], meter: "_Meter") -> Callable[P, R]:
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with meter:
            return function(*args, **kwargs)

    return call


def _r1_flops(trainer: Trainer) -> float:
    """Of R1 with its gradients, for the batch that the traced step has drawn."""
    meter = _Meter()
    for adversary in trainer.adversaries:
        if isinstance(adversary, PixelAdversary) and trainer.config.losses.r1_gamma > 0:
            with meter:
                adversary.r1().backward()
    return meter.flops


class _Meter(TorchDispatchMode):
    """Adds up the FLOPs of every operation, and the bytes of the results that are alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live_bytes -= size


def _count(module: nn.Module) -> int:
    """Trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _state_bytes(trainer: Trainer, discriminators: nn.ModuleList) -> int:
    """Weights, their average and two moments each; gradients are part of the traced step."""
    trained = 4 * _count(trainer.G) + 3 * _count(discriminators)
    return 4 * trained


def blank_dataset(config: TrainConfig, class_count: int) -> Dataset:
    """Two images a class, of zeros."""
    side, n = config.run.resolution, 2 * class_count
    return Dataset(
        root=Path(),
        classes=tuple(f"class_{k}" for k in range(class_count)),
        images=np.zeros((n, side, side, 3), np.uint8),
        invented=np.zeros((n, side, side), np.bool_),
        labels=np.arange(n, dtype=np.int64) % class_count,
        files=("",) * n,
        styles=("none",) * n,
        blocks=np.zeros(n, np.int64),
        digest="",
        label_mode=config.data.label_mode,
    )
