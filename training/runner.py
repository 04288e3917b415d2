"""One training run from its first image to its last: data, trainer, snapshots, signals, progress."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from training.config import TrainConfig
from training.data import Dataset, default_cache_dir, load_dataset
from training.evaluation.quick_scores import quick_scores
from training.evaluation.reference import Reference, extract_reference
from training.loop import Tick, Trainer
from training.process import StopSignals, prepare_process
from training.run_dir import RunDir

GRID_PER_CLASS = 8


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What the command line asked for. Exactly one of `resume` and a fresh `out` folder is used."""

    config: TrainConfig
    data: Path
    out: Path
    resume: Path | None = None
    grow: Path | None = None
    device: str = "cpu"
    time_budget_s: float = float("inf")
    threads: int | None = None


def run(request: RunRequest) -> RunDir:
    """Train until the images or the time are used up, or SIGTERM or Ctrl-C asks to stop; then save.

    Raises TrainingError for what cannot work.
    """
    started = time.monotonic()
    prepare_process(request.threads)
    run_dir = RunDir.open(request.resume) if request.resume else None
    config = run_dir.config() if run_dir else request.config
    dataset = load_training_set(config, request.data)
    trainer = Trainer(config, dataset, request.device)
    if run_dir:
        trainer.load_state_dict(run_dir.load_state())
    else:
        if request.grow:
            trainer.grow_from(RunDir.open(request.grow).load_state())
        run_dir = RunDir.create(request.out, config, dataset, trainer.device)
    scorer = Scorer.for_run(config, request.data) if config.run.score_images else None
    with StopSignals() as signals, _progress(config, trainer) as (bar, task):
        recorder = _Recorder(trainer, run_dir, scorer, bar, task)
        trainer.run_until(
            int(config.run.total_kimg * 1000),
            stop=lambda: signals.received or time.monotonic() - started > request.time_budget_s,
            on_tick=recorder.tick,
        )
    run_dir.save_state(trainer.state_dict())
    return run_dir


def load_training_set(config: TrainConfig, root: Path) -> Dataset:
    """The images a run may see: cleaned, deduplicated, without the block held out."""
    dataset = load_dataset(
        root,
        resolution=config.run.resolution,
        label_mode=config.data.label_mode,
        deduplicate=config.data.deduplicate,
    )
    if config.data.hold_out_block < 0:
        return dataset
    return dataset.subset(dataset.blocks != config.data.hold_out_block)


@dataclass(frozen=True)
class Scorer:
    """Scores a generator with an extractor no discriminator uses (EfficientNet-Lite2) against training images."""

    reference: Reference
    images_per_class: int

    @classmethod
    def for_run(cls, config: TrainConfig, root: Path) -> "Scorer":
        """Reference features are those of the whole images at the run's resolution, cached on disk."""
        extractor = FeatureExtractor(2)
        dataset = load_training_set(config, root)
        cache = FeatureCache(default_cache_dir())
        return cls(extract_reference(dataset, extractor, cache=cache), config.run.score_images)

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        return quick_scores(trainer.export_generator(), self.reference, self.images_per_class)  # type: ignore[arg-type]


class _Recorder:
    """Logs every tick; at every snapshot saves state, samples and scores, and keeps the best."""

    def __init__(
        self, trainer: Trainer, run_dir: RunDir, scorer: Scorer | None, bar: Progress, task: Any
    ) -> None:
        self.trainer = trainer
        self.run_dir = run_dir
        self.scorer = scorer
        self.bar = bar
        self.task = task
        self.best = run_dir.best_score()
        self.interval = int(trainer.config.run.snapshot_kimg * 1000)
        self.next_snapshot = (trainer.images_seen // self.interval + 1) * self.interval

    def tick(self, tick: Tick) -> None:
        losses = {name: round(value, 5) for name, value in tick.losses.items()}
        self.run_dir.log(images_seen=tick.images_seen, images_per_second=round(tick.images_per_second, 2), **losses)
        self.bar.update(self.task, completed=tick.images_seen, rate=f"{tick.images_per_second:.1f} images/s")
        if tick.images_seen >= self.next_snapshot:
            self.snapshot()

    def snapshot(self) -> None:
        state = self.trainer.state_dict()
        self.run_dir.save_state(state)
        self.run_dir.save_samples(sample_grid(self.trainer), self.trainer.images_seen, GRID_PER_CLASS)
        if self.scorer:
            scores = self.scorer(self.trainer)
            score = scores["kid/mean"]
            self.run_dir.log(images_seen=self.trainer.images_seen, score=score, **scores)
            if score < self.best:
                self.best = score
                self.run_dir.save_state(state, "best.pt")
        self.next_snapshot += self.interval


@torch.no_grad()
def sample_grid(trainer: Trainer) -> npt.NDArray[np.uint8]:
    """GRID_PER_CLASS images of each class, one row a class, always from the same latents."""
    generator = trainer.export_generator()
    random = torch.Generator().manual_seed(0)
    rows = []
    for label in torch.eye(len(trainer.classes)):
        z = torch.randn(GRID_PER_CLASS, trainer.config.generator.latent_dim, generator=random)
        images = generator(z, label.expand(GRID_PER_CLASS, -1))
        rows.append(((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
    return np.asarray(torch.cat(rows).numpy())


class _progress:  # noqa: N801 -- reads as a function in its one `with`
    """A bar over images seen, with rate and time left."""

    def __init__(self, config: TrainConfig, trainer: Trainer) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        total = int(config.run.total_kimg * 1000)
        self.task = self.bar.add_task(config.recipe, total=total, completed=trainer.images_seen, rate="")

    def __enter__(self) -> tuple[Progress, Any]:
        self.bar.start()
        return self.bar, self.task

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
