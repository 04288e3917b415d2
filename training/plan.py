"""From what a command line asks for to a run: which recipe, which changes, which kind of training."""

import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig
from training.cost import H100_FLOPS, H100_SHARE, estimated_rate, measure_cost
from training.diffusion.config import DIFFUSION_PRESETS, DiffusionConfig
from training.diffusion.cost import estimate as estimate_diffusion
from training.errors import ConfigInvalidError
from training.hardware import fastest, measure
from training.origin import Origin
from training.presets import preset as named_preset
from training.ranks import Ranks
from training.run_dir import RunDir

DEFAULT_PRESET = "cpu"
FRESH_WARMUP_KIMG = 1.0
"""A fresh discriminator learns alone for this long before it teaches a trained generator."""
ASSUMED_CLASSES = 4
"""Of a dry run, which reads no data; more classes add a few hundred parameters each."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the command line says of the run's configuration."""

    preset: str | None = None
    resume: Path | None = None
    grow: Path | None = None
    init: Origin | None = None
    discriminators: Path | None = None
    resolution: int | None = None
    total_kimg: float | None = None
    classes: dict[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def changes(self) -> list[str]:
        """All of it as settings."""
        changes = list(self.settings)
        if self.resolution is not None:
            changes.append(f"run.resolution={self.resolution}")
        if self.total_kimg is not None:
            changes.append(f"run.total_kimg={self.total_kimg}")
        return changes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A resolved configuration and where it starts from."""

    config: TrainConfig | DiffusionConfig
    changes: list[str]
    resume: Path | None
    grow: Path | None
    init: Origin | None
    discriminators: Path | None = None

    def describe(self, device: str) -> str:
        """What `--dry-run` prints: configuration, parameters, FLOPs, memory, and an estimated rate."""
        found = self.estimate(device)
        return json.dumps(found, indent=2) if isinstance(self.config, DiffusionConfig) else describe(found)

    def estimate(self, device: str) -> dict[str, Any]:
        """The same for JSON. Raises ConfigInvalidError for a device that is not there."""
        if isinstance(self.config, DiffusionConfig):
            return estimate_diffusion(self.config)
        return estimate(self.config, torch.device(choose_device(device)))

    def run(
        self, *, data: Path | None, out: Path | None, device: str, time_budget_s: float, threads: int | None
    ) -> RunDir | None:
        """Train; None for a process whose run another one writes. Raises TrainingError."""
        from training.diffusion.train import DiffusionRequest, run_diffusion  # a dry run needs neither
        from training.runner import RunRequest, run

        data = data or self._recorded_data()
        out = out or Path("runs") / f"{self.config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}"
        if self.resume is None and out.resolve().is_relative_to(data.resolve()):
            raise ConfigInvalidError(f"--out {out} lies in --data {data}, whose folders are classes")
        device = choose_device(device)
        ranks = Ranks.join(torch.device(device).type)
        try:
            if isinstance(self.config, DiffusionConfig):
                if ranks.size > 1:
                    raise ConfigInvalidError(f"preset {self.config.recipe} trains in one process only")
                return run_diffusion(
                    DiffusionRequest(
                        config=self.config,
                        data=data,
                        out=out,
                        resume=self.resume,
                        device=device,
                        time_budget_s=time_budget_s,
                        threads=threads,
                        changes=self.changes,
                    )
                )
            request = RunRequest(
                config=self.config,
                data=data,
                out=out,
                resume=self.resume,
                grow=self.grow,
                init=self.init,
                discriminators=self.discriminators,
                device=device,
                time_budget_s=time_budget_s,
                threads=threads,
                changes=self.changes,
            )
            run_dir = run(request, ranks)
            return run_dir if ranks.is_first else None
        finally:
            ranks.leave()

    def _recorded_data(self) -> Path:
        """Where a run to resume found its images. Raises ConfigInvalidError if that is not known."""
        if self.resume is not None:
            path = RunDir.open(self.resume).environment()["dataset"].get("path")
            if path is not None:
                return Path(path)
        raise ConfigInvalidError("--data is missing: a folder with one folder of images per class")


def plan(wish: Wish) -> Plan:
    """Raises ConfigInvalidError, RunInvalidError."""
    starts = {"--resume": wish.resume, "--grow": wish.grow, "--init": wish.init}
    given = [name for name, start in starts.items() if start is not None]
    if len(given) > 1:
        raise ConfigInvalidError(f"{' and '.join(given)} exclude each other: a run starts from one place")
    if wish.discriminators is not None and wish.init is None:
        raise ConfigInvalidError("--discriminators goes with --init: they must know the generator they judge")
    if wish.init is not None:
        wish = replace(wish, init=wish.init.teaching(_held_classes(wish)))
    config = _starting_point(wish)
    changed = config.with_settings(wish.changes())
    if wish.init is not None:
        _check_images_left(wish.init, changed)
    changes = wish.changes()
    if wish.classes:
        data = replace(changed.data, classes={**changed.data.classes, **wish.classes})
        changed = replace(changed, data=data)
        changes += [f"data.classes.{folder}={slug}" for folder, slug in wish.classes.items()]
    return Plan(
        config=changed,
        changes=changes,
        resume=wish.resume,
        grow=wish.grow,
        init=wish.init,
        discriminators=wish.discriminators,
    )


def _held_classes(wish: Wish) -> tuple[str, ...]:
    """What the settings say of them, which tells the networks that all other settings are of."""
    settings = [s for s in wish.settings if s.partition("=")[0].strip() == "data.held_classes"]
    return named_preset(DEFAULT_PRESET).with_settings(settings).data.held_classes


def estimate(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Configuration and cost of a recipe, for JSON; takes seconds and makes no training step."""
    choice = fastest(measure(config, device))
    run = replace(config.run, precision=choice.precision, memory_format=choice.memory_format)
    cost = measure_cost(replace(config, run=run), ASSUMED_CLASSES)
    rate = estimated_rate(cost, device, choice)
    return {
        "config": config.to_dict(),
        "cost": asdict(cost),
        "classes": ASSUMED_CLASSES,
        "dataset_image_bytes": 4 * config.run.resolution**2,
        "device": device.type,
        "convolution_flops_per_second": choice.flops_per_second,
        "images_per_second": rate,
        "hours": config.run.total_kimg * 1000 / rate / 3600,
        "h100_images_per_second": H100_SHARE * H100_FLOPS / cost.step_flops,
    }


def describe(found: dict[str, Any]) -> str:
    """What `estimate` found, for people."""
    config, cost = found["config"], found["cost"]
    lines = [
        json.dumps(config, indent=2),
        f"parameters, {found['classes']} classes: generator {cost['generator_parameters']},"
        f" discriminator {cost['discriminator_parameters']}, frozen features {cost['frozen_parameters']}",
        f"FLOPs per image: generator {cost['generator_flops']:.0f},"
        f" discriminator {cost['discriminator_flops']:.0f}, whole training step {cost['step_flops']:.0f}",
        f"memory, estimated: {cost['memory_bytes'] / 1e9:.2f} GB for batch {config['optimizer']['batch']},"
        f" and {found['dataset_image_bytes'] / 1e3:.0f} kB for every image of the dataset, on a CPU and on a"
        " GPU",
        f"rate on {found['device']} here, estimated: {found['images_per_second']:.3g} images/s, from a"
        f" convolution at {found['convolution_flops_per_second'] / 1e9:.0f} GFLOP/s;"
        f" {config['run']['total_kimg']:g} kimg in {found['hours']:.3g} h",
        "rate on one H100, estimated from its data sheet and never measured:"
        f" {found['h100_images_per_second']:.0f} images/s",
    ]
    return "\n".join(lines)


def choose_device(device: str) -> str:
    """`auto` as the first GPU or the CPU. Raises ConfigInvalidError for one that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cpu", "cuda"):
        raise ConfigInvalidError(f"--device {device!r} is not auto, cpu, cuda or cuda:N")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigInvalidError(f"--device {device!r}: there are {count} CUDA devices here")
    return device


def _starting_point(wish: Wish) -> TrainConfig | DiffusionConfig:
    """The configuration before changes: of a run to resume or to grow, or of a preset."""
    if wish.resume is not None:
        return _of_run(RunDir.open(wish.resume), wish.preset)
    if wish.grow is not None:
        return _grown(RunDir.open(wish.grow), wish.preset)
    name = wish.preset or DEFAULT_PRESET
    if wish.init is not None:
        return _initialized(wish.init, name)
    return DIFFUSION_PRESETS[name]() if name in DIFFUSION_PRESETS else named_preset(name)


def _of_run(run_dir: RunDir, preset: str | None) -> TrainConfig | DiffusionConfig:
    kind = DiffusionConfig if run_dir.is_diffusion() else TrainConfig
    config: TrainConfig | DiffusionConfig = kind.from_dict(run_dir.read_config())
    if preset not in (None, config.recipe):
        raise ConfigInvalidError(f"--preset {preset!r}: {run_dir.path} is a run of {config.recipe!r}")
    return config


def _grown(parent: RunDir, preset: str | None) -> TrainConfig:
    """The parent's recipe, or the preset, at twice the side: images are corrections of the trained ones."""
    if parent.is_diffusion():
        raise ConfigInvalidError(f"--grow {parent.path}: a latent diffusion model does not grow")
    smaller = parent.config()
    config = smaller if preset is None else named_preset(preset)
    return replace(
        config,
        data=replace(config.data, classes=smaller.data.classes),
        generator=replace(config.generator, rgb_skip=True),
        optimizer=replace(config.optimizer, warmup_kimg=config.optimizer.warmup_kimg or FRESH_WARMUP_KIMG),
        run=replace(config.run, resolution=2 * smaller.run.resolution),
    )


def _initialized(origin: Origin, name: str) -> TrainConfig:
    """The preset with the networks' arguments and the side of a published checkpoint."""
    if name in DIFFUSION_PRESETS:
        raise ConfigInvalidError(f"--init {origin.manifest.reference}: preset {name} is a diffusion model")
    config = named_preset(name)
    options = origin.generator_options({option.name for option in fields(config.generator)})
    return replace(
        config,
        generator=replace(config.generator, **options),
        optimizer=replace(config.optimizer, warmup_kimg=config.optimizer.warmup_kimg or FRESH_WARMUP_KIMG),
        run=replace(config.run, resolution=origin.manifest.resolution),
    )


def _check_images_left(origin: Origin, config: TrainConfig | DiffusionConfig) -> None:
    """Raises ConfigInvalidError if the run would be over before its first image."""
    seen = origin.manifest.training.images_seen / 1000
    if isinstance(config, TrainConfig) and config.run.total_kimg < seen:
        raise ConfigInvalidError(
            f"run.total_kimg {config.run.total_kimg:g} is below the {seen:g} that {origin.manifest.reference}"
            " has seen, which count too"
        )
