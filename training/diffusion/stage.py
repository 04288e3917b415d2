"""What both stages of a diffusion run share: a network, its averaged weights, optimiser, random state."""

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from training.config import RunConfig
from training.errors import TrainingDivergedError
from training.hardware import MEMORY_FORMATS
from training.loop import Tick
from training.optimizers import load_moments


class StageTrainer(ABC):
    """Trains `network` by `loss`; `averaged()` is what later stages and publications use.

    run: with every `auto` decided.
    """

    name: str

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        run: RunConfig,
        batch: int,
        ema_decay: float,
    ) -> None:
        self.network = network.to(memory_format=MEMORY_FORMATS[run.memory_format])
        self.optimizer = optimizer
        self.run = run
        self.batch = batch
        self.ema_decay = ema_decay
        self.device = next(network.parameters()).device
        self.random = torch.Generator(self.device).manual_seed(run.seed)
        self.average = {name: p.detach().clone() for name, p in network.named_parameters()}
        self.images_seen = 0
        self.seconds_trained = 0.0

    @abstractmethod
    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one fresh batch, and the terms worth logging, still on the device."""

    def step(self) -> dict[str, Tensor]:
        """One optimiser step. Returns the terms, still on the device."""
        loss, terms = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.images_seen += self.batch
        self._average_weights()
        return {"loss": loss.detach(), **terms}

    def run_until(
        self,
        images: int,
        *,
        stop: Callable[[], bool],
        on_tick: Callable[[Tick], None],
    ) -> None:
        """Train until `images` were seen or `stop()` says so. Raises TrainingDivergedError."""
        while self.images_seen < images and not stop():
            started, before = time.perf_counter(), self.images_seen
            tick_images = max(int(self.run.tick_kimg * 1000), 1)
            sums: dict[str, Tensor] = {}
            while self.images_seen < min(before + tick_images, images) and not stop():
                for name, value in self.step().items():
                    sums[name] = sums[name] + value if name in sums else value
            seen = self.images_seen - before
            means = {name: float(total) * self.batch / max(seen, 1) for name, total in sums.items()}
            seconds = time.perf_counter() - started
            self.seconds_trained += seconds
            if not all(math.isfinite(value) for value in means.values()):
                raise TrainingDivergedError(self.images_seen, means)
            if seen:
                on_tick(Tick(self.images_seen, seen / seconds, means))

    @torch.no_grad()
    def averaged(self) -> nn.Module:
        """A copy of the network with the averaged weights, in eval mode and without gradients."""
        network = copy.deepcopy(self.network).eval().requires_grad_(False)
        for name, parameter in network.named_parameters():
            parameter.copy_(self.average[name])
        return network

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 for convolutions and products where the run says so."""
        if self.run.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed stage needs to continue as if it had not stopped; tensors and numbers only."""
        return {
            "images_seen": self.images_seen,
            "seconds_trained": self.seconds_trained,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "dropout_random": _default_generator(self.device).get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same networks, at the rates of the configuration."""
        self.network.load_state_dict(state["network"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        load_moments(self.optimizer, state["optimizer"])
        self.random.set_state(state["random"].cpu())
        _default_generator(self.device).set_state(state["dropout_random"].cpu())
        self.images_seen = state["images_seen"]
        self.seconds_trained = state["seconds_trained"]

    @torch.no_grad()
    def _average_weights(self) -> None:
        """A short memory at first, so that the random start is soon forgotten."""
        steps = self.images_seen // self.batch
        decay = min(self.ema_decay, (1 + steps) / (10 + steps))
        live = dict(self.network.named_parameters())
        torch._foreach_lerp_(
            list(self.average.values()), [live[name].detach() for name in self.average], 1 - decay
        )


def _default_generator(device: torch.device) -> torch.Generator:
    """The generator dropout layers draw from."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator
