"""The training loop: one batch for the discriminator and the generator, then average the weights."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from model_store.generators.layers import use_transposed_convolutions
from model_store.generators.registry import Generator, build_generator
from training import losses
from training.adversaries import Adversary, PixelAdversary, ProjectedAdversary
from training.batches import Batches
from training.compilation import compiled
from training.config import TrainConfig
from training.data import Dataset
from training.errors import RunInvalidError, TrainingDivergedError
from training.evaluation.reference import Progress
from training.folding import generator_config, normalized_weights
from training.frechet_loss import FrechetLoss
from training.frozen_trunk import FrozenTrunk
from training.hardware import MEMORY_FORMATS, fit_to_device
from training.held import held_positions, published_generator
from training.image_random import ImageRandom, draw_for_images
from training.kinds import Kinds, class_of_kind
from training.optimizers import load_moments, make_optimizer, places_when_saved
from training.ranks import Ranks
from training.spectral_norm import SpectralNorm, initialize


@dataclass(frozen=True, slots=True)
class Tick:
    """What one logging interval measured."""

    images_seen: int
    images_per_second: float
    losses: dict[str, float]


class Trainer:
    """Networks, optimisers and random state of one run; `run_until` trains.

    Names follow the field: G and D are trained, G_ema is the averaged generator that is published. kinds: of
    the dataset's images, which are then drawn, told to G and matched in place of classes.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        device: str = "cpu",
        ranks: Ranks | None = None,
        progress: Progress | None = None,
        kinds: Kinds | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.ranks = ranks or Ranks()
        config = fit_to_device(config, self.device, self.ranks)
        torch.manual_seed(config.run.seed)
        self.config = config
        self.classes = dataset.classes
        self.kinds = kinds
        self.kind_shares = kinds.shares if kinds else ()
        self.kind_counts = kinds.counts if kinds else (1,) * len(dataset.classes)
        self.class_of_kind = class_of_kind(self.kind_counts).to(self.device)
        share = self.ranks.share(config.optimizer.batch)
        self.random = ImageRandom(self.device, config.run.seed, self.ranks, share)
        self.held = held_positions(config.data.held_classes, dataset.classes)
        self.held_experts: list[dict[str, Any]] = []
        self.batches = Batches(dataset, config, self.device, self.random, kinds, self.held)
        self.target_colors = self.batches.mean_colors()

        architecture = generator_config(config, len(dataset.classes), self.kind_shares)
        self.G = build_generator("masan", architecture).to(self.device)
        self.latent_dim = cast("Generator", self.G).latent_dim
        use_transposed_convolutions(self.G).to(memory_format=MEMORY_FORMATS[config.run.memory_format])
        names = normalized_weights(self.G, config.generator)
        initialize(self.G, config.generator.init_gain, exclude=("attention", "refine"))
        self.normalize_G = SpectralNorm(self.G, names).to(self.device)
        self.G_ema = {name: parameter.detach().clone() for name, parameter in self.G.named_parameters()}
        self.generate = compiled(self._generate) if config.run.compile else self._generate
        self.adversaries: list[Adversary] = make_adversaries(config, len(dataset.classes), self)
        self.frechet = self._frechet_loss(progress)
        self.optimizer_G = make_optimizer(self.G, config.optimizer.generator_lr, config)
        self.optimizer_D = make_optimizer(self.discriminators(), config.optimizer.discriminator_lr, config)
        self.images_at_start = 0
        self.images_seen = 0
        self.seconds_trained = 0.0
        self.warmup_left = int(config.optimizer.warmup_kimg * 1000)

    def step(self) -> dict[str, Tensor]:
        """One step of D and one of G on the same batch, or of G alone where nothing judges it.

        Returns this rank's terms, still on the device. Nothing in it waits for the device but, at times, the
        Frechet distance.
        """
        self._set_rates()
        if self.adversaries:
            terms = self._judged_step()
        else:  # which a configuration allows with the distance only
            terms = self._matching_step(cast("FrechetLoss", self.frechet))
        if self.warmup_left > 0:  # what teaches a trained generator learns alone first
            self.warmup_left -= self.config.optimizer.batch
            return terms
        self.ranks.average_gradients(self.G.parameters())
        self.optimizer_G.step()
        self.images_seen += self.config.optimizer.batch
        self._average_weights(self.config.optimizer.batch)
        return terms

    def _judged_step(self) -> dict[str, Tensor]:
        """Discriminators learn from a batch; then the generator's gradient of the same images."""
        config = self.config
        real, invented, label = self.batches.draw()
        z = draw_for_images(len(label), self.random, self._latents)  # [N, Z]
        weights = self.normalize_G(dict(self.G.named_parameters()))
        fake = self.generate(weights, z, label)  # [N, 3, H, W]
        seen = ~invented  # invented pixels are hidden from D in the real image and in its generated partner
        memory_format = MEMORY_FORMATS[config.run.memory_format]
        for adversary in self.adversaries:
            adversary.observe(
                (real * seen).contiguous(memory_format=memory_format),
                (fake * seen).contiguous(memory_format=memory_format),
                self.class_label(label),
            )

        terms: dict[str, Tensor] = {}
        loss_D = torch.zeros((), device=self.device)
        for adversary in self.adversaries:
            loss, logged = adversary.discriminator_loss()
            loss_D = loss_D + loss
            terms |= logged
        self.optimizer_D.zero_grad(set_to_none=True)
        loss_D.backward()
        self.ranks.average_gradients(self.discriminators().parameters())
        self.optimizer_D.step()
        for adversary in self.adversaries:
            adversary.after_step()
        self._share_statistics()
        terms["loss_D"] = loss_D.detach()
        if self.warmup_left > 0:
            return terms

        loss_G = torch.stack([a.weight * a.generator_loss() for a in self.adversaries]).sum()
        colors = self.ranks.gather(fake.mean(dim=(2, 3), keepdim=True))  # [batch, 3, 1, 1]
        color = losses.mean_color(colors, self.ranks.gather(label), self.target_colors)
        terms |= {"loss_G": loss_G.detach(), "color": color.detach()}
        loss_G = loss_G + config.losses.mean_color_weight * color
        if self.frechet is not None:
            distance, of_sets = self._weighed(*self.frechet(fake, label))
            terms |= of_sets
            loss_G = loss_G + distance
        self.optimizer_G.zero_grad(set_to_none=True)
        loss_G.backward()
        return terms

    def _matching_step(self, frechet: FrechetLoss) -> dict[str, Tensor]:
        """The generator's gradient of the distances of sets alone, summed over parts of the batch.

        Parts of a few images stay in a processor's cache, and take no more memory for a larger batch.
        """
        waits = self.warmup_left > 0
        label = self.batches.draw_labels()
        z = draw_for_images(len(label), self.random, self._latents)  # [N, Z]
        weights = self.normalize_G(dict(self.G.named_parameters()))
        leaves = {name: weight.detach().requires_grad_(not waits) for name, weight in weights.items()}
        size = self.config.optimizer.micro_batch or len(label)
        sums: dict[str, Tensor] = {}
        for z_part, label_part in zip(z.split(size), label.split(size), strict=True):
            share = len(z_part) / len(label)
            with torch.set_grad_enabled(not waits):
                images = self.generate(leaves, z_part, label_part)
                distance, terms = self._weighed(*frechet(images, label_part))
            if not waits:
                (share * distance).backward()
            _add(sums, terms, share)
        if not waits:
            self.optimizer_G.zero_grad(set_to_none=True)
            reached = [name for name, leaf in leaves.items() if leaf.grad is not None]
            torch.autograd.backward(
                [weights[name] for name in reached], [leaves[name].grad for name in reached]
            )
        return sums

    def _weighed(self, frechet: Tensor, neighbours: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generator is to lessen of a set's distances, and they themselves, for the log."""
        config = self.config.losses
        distance, terms = config.frechet_weight * frechet, {"frechet": frechet.detach()}
        if neighbours is not None:
            distance = distance + config.neighbour_weight * neighbours
            terms["neighbours"] = neighbours.detach()
        return distance, terms

    def _set_rates(self) -> None:
        """Learning rates of this step: rising from zero at the run's start, falling to zero at its end."""
        config, factor = self.config.optimizer, 1.0
        done = self.images_seen - self.images_at_start + config.batch
        left = 1000 * self.config.run.total_kimg - self.images_seen
        if config.rampup_kimg > 0:
            factor *= min(1.0, done / (1000 * config.rampup_kimg))
        if config.decay_kimg > 0:
            factor *= 0.5 - 0.5 * math.cos(math.pi * min(1.0, left / (1000 * config.decay_kimg)))
        for group in (*self.optimizer_G.param_groups, *self.optimizer_D.param_groups):
            group["lr"] = factor * group["full_lr"]

    def _frechet_loss(self, progress: Progress | None) -> FrechetLoss | None:
        config = self.config.losses
        if config.frechet_weight == 0:
            return None
        dtype = torch.bfloat16 if self.config.run.precision == "bf16" else torch.float32
        trunks = [FrozenTrunk(dtype, n).to(self.device) for n in config.frechet_networks]
        done, total = 0, len(trunks) * len(self.batches.labels)

        def real() -> Iterator[tuple[Tensor, Tensor]]:
            nonlocal done
            for images, label in self.batches.each_once():
                yield images, label
                done += len(label)
                if progress is not None:
                    progress("features of real images", done, total)

        neighbours = config.neighbour_weight > 0
        return FrechetLoss(trunks, real, self.ranks, classes=self.class_of_kind, neighbours=neighbours)

    def _latents(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(n, self.latent_dim, generator=generator, device=self.device)

    def _generate(self, weights: dict[str, Tensor], z: Tensor, label: Tensor) -> Tensor:
        with self.autocast():
            images: Tensor = functional_call(self.G, weights, (z, label))
        return images.float()

    def run_until(self, images: int, *, stop: Callable[[], bool], on_tick: Callable[[Tick], None]) -> None:
        """Train until `images` were seen or `stop()` says so at any rank. Raises TrainingDivergedError.

        Alone, a stop is obeyed after the step; ranks agree on it at a tick.
        """
        batch, tick_images = self.config.optimizer.batch, self.config.run.tick_kimg * 1000
        while self.images_seen < images and not self.ranks.any(stop(), self.device):
            started, steps = time.perf_counter(), 0
            sums: dict[str, Tensor] = {}
            while self.images_seen < images and (steps == 0 or steps * batch < tick_images):
                _add(sums, self.step())
                steps += 1
                if self.ranks.size == 1 and stop():
                    break
            self.ranks.average(list(sums.values()))
            means = {name: float(total) / steps for name, total in sums.items()}
            seconds = time.perf_counter() - started
            self.seconds_trained += seconds
            self._check_finite(means)
            on_tick(Tick(self.images_seen, steps * batch / seconds, means))

    @torch.no_grad()
    def _check_finite(self, means: Mapping[str, float]) -> None:
        """Raises TrainingDivergedError if a loss or the norm of a weight is not finite."""
        norms = torch._foreach_norm([*self.G.parameters(), *self.discriminators().parameters()])
        values = {**means, "norm of all weights": float(torch.stack(list(norms)).sum())}
        if not all(math.isfinite(value) for value in values.values()):
            raise TrainingDivergedError(self.images_seen, values)

    def class_label(self, label: Tensor) -> Tensor:
        """What a batch's labels say of classes, [N, K] one-hot: [N, T] may be of kinds."""
        return label if label.shape[1] == len(self.classes) else label @ self.class_of_kind

    def export_generator(self) -> nn.Module:
        """G_ema as it would be published; see `training.held.published_generator`."""
        vectors, count = self.normalize_G.state_dict(), len(self.classes)
        return published_generator(
            self.config, count, self.G_ema, vectors, self.kind_shares, self.held_experts
        )[0]

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 for convolutions and products where the run says so."""
        if self.config.run.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to continue as if it had not stopped; tensors and numbers only."""
        return {
            "config": self.config.to_dict(),
            "classes": list(self.classes),
            "kinds": self.kinds.state() if self.kinds else None,
            "images_seen": self.images_seen,
            "images_at_start": self.images_at_start,
            "seconds_trained": self.seconds_trained,
            "warmup_left": self.warmup_left,
            "G": self.G.state_dict(),
            "G_ema": self.G_ema,
            "normalize_G": self.normalize_G.state_dict(),
            "D": self.discriminators().state_dict(),
            "optimizer_G": self.optimizer_G.state_dict(),
            "optimizer_D": self.optimizer_D.state_dict(),
            "frechet": self.frechet.state_dict() if self.frechet is not None else None,
            "held": self.held_experts,
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises RunInvalidError if the state is of other classes, or holds others."""
        self.check_classes(state)
        self.held_experts = state.get("held", [])
        held = sorted(index for expert in self.held_experts for index in expert["classes"])
        if held != list(self.held):
            raise RunInvalidError(f"data.held_classes: the run holds {[self.classes[i] for i in held]}")
        self.G.load_state_dict(state["G"])
        for name, value in state["G_ema"].items():
            self.G_ema[name].copy_(value)
        self.normalize_G.load_state_dict(state["normalize_G"])
        self.discriminators().load_state_dict(state["D"])
        saved = TrainConfig.from_dict(state["config"])
        places = places_when_saved(self.G, saved, self.config)
        load_moments(self.optimizer_G, state["optimizer_G"], places)
        load_moments(self.optimizer_D, state["optimizer_D"])
        if self.frechet is not None and state.get("frechet") is not None:
            self.frechet.load_state_dict(state["frechet"])
        self.random.set_state(state["random"].cpu())
        self.images_seen = state["images_seen"]
        self.images_at_start = state.get("images_at_start", 0)
        self.seconds_trained = state["seconds_trained"]
        self.warmup_left = state["warmup_left"]

    def check_classes(self, state: Mapping[str, Any]) -> None:
        """Raises RunInvalidError unless a state is of this run's classes, in their order."""
        if list(state["classes"]) != list(self.classes):
            raise RunInvalidError(
                f"the run was trained on {state['classes']}, the data has {list(self.classes)}"
            )

    def discriminators(self) -> nn.ModuleList:
        """All that the run's adversaries train, and keep; empty where there are none."""
        return nn.ModuleList(adversary.module for adversary in self.adversaries)

    def _share_statistics(self) -> None:
        """Give every rank the mean of what each keeps of its own images, such as LeCam's anchors."""
        if self.ranks.size > 1:
            self.ranks.average([b for b in self.discriminators().buffers() if b.is_floating_point()])

    @torch.no_grad()
    def _average_weights(self, batch: int) -> None:
        optimizer = self.config.optimizer
        half_life = min(optimizer.ema_kimg * 1000, self.images_seen * optimizer.ema_rampup)
        decay = 0.5 ** (batch / max(half_life, 1e-8))
        names = list(self.G_ema)
        live = dict(self.G.named_parameters())
        torch._foreach_lerp_([self.G_ema[n] for n in names], [live[n].detach() for n in names], 1 - decay)


def make_adversaries(config: TrainConfig, class_count: int, trainer: Trainer) -> list[Adversary]:
    """The discriminators the run asks for."""
    adversaries: list[Adversary] = []
    if config.discriminator.kind in ("projected", "combined"):
        adversaries.append(
            ProjectedAdversary(config, class_count, trainer.autocast, trainer.random, trainer.ranks)
        )
    if config.discriminator.kind in ("pixel", "combined"):
        weight = config.discriminator.pixel_weight if config.discriminator.kind == "combined" else 1.0
        adversaries.append(
            PixelAdversary(config, class_count, trainer.autocast, trainer.random, weight=weight)
        )
    for adversary in adversaries:
        adversary.module.to(trainer.device).to(memory_format=MEMORY_FORMATS[config.run.memory_format])
    return adversaries


def _add(sums: dict[str, Tensor], terms: Mapping[str, Tensor], share: float = 1.0) -> None:
    """Add that share of each term to its sum, which begins with the first."""
    for name, value in terms.items():
        sums[name] = sums[name] + share * value if name in sums else share * value
