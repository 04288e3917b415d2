"""How many images a training step sees per second, and how much faster that is than a plain loop.

    python benchmarks/train_throughput.py --preset cpu --threads 2

Both loops train the same networks on the same batch size in one process, taking turns. The plain one is what
the publications' code does, in eager float32: nearest upsampling before the normalisation, ordinary 3x3
convolutions, the attention as published, spectral norm recomputed in every forward pass, separate
discriminator passes for real and for generated images, generated images made anew for the generator's step
with the discriminator's graph kept, R1 at every step, frozen features computed wherever they are needed,
unfused Adam. FLOP/s are those the fast loop executes; a plain loop's are more for the same image.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from model_store.generators.layers import AdaIN, EMAttention, UpBlock, lrelu
from model_store.generators.registry import build_generator
from training import losses
from training.adversaries import PixelAdversary, ProjectedAdversary
from training.config import TrainConfig
from training.cost import blank_dataset, measure_cost
from training.folding import generator_config
from training.hardware import fit_to_device
from training.loop import Trainer
from training.presets import preset
from training.process import prepare_process
from training.run_dir import device_name, source_commit
from training.spectral_norm import initialize, spectral_weights


class PlainUpBlock(nn.Module):
    """The published order: nearest x2 -> AdaIN -> lrelu -> 3x3 convolution."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.norm, self.noise, self.conv = block.norm, block.noise, block.conv

    def forward(self, x: Tensor, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        normalized = plain_adain(self.norm, F.interpolate(x, scale_factor=2.0, mode="nearest"), condition)
        if self.noise is not None and noise is not None:
            normalized = self.noise(normalized, F.interpolate(noise, scale_factor=2.0, mode="nearest"))
        out: Tensor = self.conv(lrelu(normalized))
        return out


def plain_adain(norm: AdaIN, x: Tensor, condition: Tensor) -> Tensor:
    gamma, beta = norm.affine(condition)[:, :, None, None].chunk(2, dim=1)
    out: Tensor = (1 + gamma) * F.instance_norm(x) + beta
    return out


class PlainAttention(nn.Module):
    """EMA attention step by step, as published."""

    def __init__(self, attention: EMAttention) -> None:
        super().__init__()
        self.groups, self.width = attention.groups, attention.width
        self.conv1x1, self.conv3x3, self.norm = attention.conv1x1, attention.conv3x3, attention.norm

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        grouped = x.reshape(n * self.groups, self.width, h, w)
        rows = grouped.mean(dim=3, keepdim=True)
        columns = grouped.mean(dim=2, keepdim=True).transpose(2, 3)
        mixed_rows, mixed_columns = self.conv1x1(torch.cat([rows, columns], dim=2)).split([h, w], dim=2)
        gate = mixed_rows.sigmoid() * mixed_columns.transpose(2, 3).sigmoid()
        first, second = self.norm(grouped * gate), self.conv3x3(grouped)
        weights = [b.mean(dim=(2, 3)).softmax(dim=1)[:, None] for b in (first, second)]  # [Ng, 1, m]
        logits = weights[0] @ second.flatten(2) + weights[1] @ first.flatten(2)
        out: Tensor = (grouped * logits.view(-1, 1, h, w).sigmoid()).reshape(x.shape)
        return out


class PlainLoop:
    """The same networks in the published order of operations."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        run = replace(config.run, precision="fp32", memory_format="contiguous", compile=False)
        config = replace(config, run=run)
        self.config = config
        self.fast = Trainer(config, blank_dataset(config, 4), str(device))  # data, heads and features
        self.G = build_generator("masan", generator_config(config, 4)).to(device)
        initialize(self.G, config.generator.init_gain, exclude=("attention",))
        for name in [n.rpartition(".")[0] for n in spectral_weights(self.G, exclude=("attention",))]:
            torch.nn.utils.parametrizations.spectral_norm(self.G.get_submodule(name), eps=1e-4)
        _replace(self.G, UpBlock, PlainUpBlock)
        _replace(self.G, EMAttention, PlainAttention)
        betas = (config.optimizer.beta1, config.optimizer.beta2)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), 2e-4, betas, foreach=False)
        self.trained = [p for a in self.fast.adversaries for p in a.module.parameters() if p.requires_grad]
        self.optimizer_D = torch.optim.Adam(self.trained, 2e-4, betas, foreach=False)
        self.averages = [p.detach().clone() for p in self.G.parameters()]

    def step(self) -> None:
        """D on real and on generated images, each alone, then G on fresh ones."""
        real, _, label = self.fast.batches.draw()
        fake = self._generate(label).detach()
        self.optimizer_D.zero_grad()
        for adversary in self.fast.adversaries:
            self._discriminator_loss(adversary, real, fake, label).backward()
        self.optimizer_D.step()
        _, _, label = self.fast.batches.draw()
        fake = self._generate(label)
        self.optimizer_G.zero_grad()
        terms = [self._generator_loss(adversary, fake, label) for adversary in self.fast.adversaries]
        torch.stack(terms).sum().backward()
        self.optimizer_G.step()
        with torch.no_grad():
            for average, parameter in zip(self.averages, self.G.parameters(), strict=True):
                average.lerp_(parameter, 0.002)

    def _generate(self, label: Tensor) -> Tensor:
        z = torch.randn(len(label), self.fast.latent_dim, device=label.device)
        images: Tensor = self.G(z, label)
        return images

    def _discriminator_loss(self, adversary: Any, real: Tensor, fake: Tensor, label: Tensor) -> Tensor:
        base, weight = adversary.gan_loss, adversary.san_lambda
        if isinstance(adversary, ProjectedAdversary):
            scales = zip(
                self._projected(adversary, real, label), self._projected(adversary, fake, label), strict=True
            )
            return torch.stack([base.discriminator_loss(r, f, weight) for r, f in scales]).sum()
        adversary.observe(real, fake, label)
        return self._pixel_loss(adversary, real, fake, label)

    def _pixel_loss(self, adversary: PixelAdversary, real: Tensor, fake: Tensor, label: Tensor) -> Tensor:
        from training.discriminators.cellgan import Reconstruct, reconstruction_targets

        real_view = adversary.augment(real, adversary.generator)
        whole = Reconstruct(len(real), adversary._corner())
        real_out = adversary._run(self._normalized(adversary), real_view, label, whole)
        fake_view = adversary.augment(fake, adversary.generator)
        fake_out = adversary._run(self._normalized(adversary), fake_view, label)
        loss = adversary.gan_loss.discriminator_loss(real_out.logits, fake_out.logits, adversary.san_lambda)
        if real_out.decoded is not None:
            for decoded, target in zip(
                real_out.decoded, reconstruction_targets(real_view, whole.corner), strict=True
            ):
                loss = loss + losses.reconstruction(decoded, target)
        return loss + adversary.losses.r1_gamma / 2 * adversary.r1(self._normalized(adversary))

    def _generator_loss(self, adversary: Any, fake: Tensor, label: Tensor) -> Tensor:
        if isinstance(adversary, ProjectedAdversary):
            scales = self._projected(adversary, fake, label)
            return torch.stack([adversary.gan_loss.generator_loss(scale) for scale in scales]).sum()
        view = adversary.augment(fake, adversary.generator)
        logits = adversary._run(self._normalized(adversary), view, label).logits
        loss: Tensor = adversary.gan_loss.generator_loss(logits)
        return loss

    def _projected(self, adversary: ProjectedAdversary, images: Tensor, label: Tensor) -> Any:
        features = adversary.features(adversary.augment(images, adversary.generator))
        return functional_call(adversary.module, self._normalized(adversary), (features, label))

    def _normalized(self, adversary: Any) -> dict[str, Tensor]:
        parameters = {n: p for n, p in adversary.module.named_parameters() if p.requires_grad}
        weights: dict[str, Tensor] = adversary.normalize(parameters)
        return weights


def _replace(module: nn.Module, old: type[Any], new: Callable[[Any], nn.Module]) -> None:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, old):
                setattr(parent, name, new(child))


def seconds_per_step(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Of `steps` steps in a row."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Images/s of training, and the ratio to a plain loop.")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="part.field=value")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=2, help="steps of each loop in a round")
    parser.add_argument("--rounds", type=int, default=3, help="the best round of each loop counts")
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    device = torch.device(arguments.device)
    config = fit_to_device(preset(arguments.preset).with_settings(arguments.set), device)
    cost = measure_cost(config, 4)
    fast, plain = Trainer(config, blank_dataset(config, 4), arguments.device), PlainLoop(config, device)
    started = time.perf_counter()
    fast.step()  # compiles
    warm_up = time.perf_counter() - started
    plain.step()
    best = {"fast": float("inf"), "plain": float("inf")}
    for _ in range(arguments.rounds):
        best["plain"] = min(best["plain"], seconds_per_step(plain.step, arguments.steps, device))
        best["fast"] = min(best["fast"], seconds_per_step(fast.step, arguments.steps, device))
    batch = config.optimizer.batch
    result = {
        "preset": config.recipe,
        "resolution": config.run.resolution,
        "batch": batch,
        "precision": config.run.precision,
        "memory_format": config.run.memory_format,
        "compile": config.run.compile,
        "device": device_name(device),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "commit": source_commit(),
        "images_per_second": round(batch / best["fast"], 2),
        "achieved_gflops_per_second": round(cost.step_flops * batch / best["fast"] / 1e9, 1),
        "plain_images_per_second": round(batch / best["plain"], 2),
        "ratio": round(best["plain"] / best["fast"], 2),
        "warm_up_seconds": round(warm_up, 1),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
