"""One diffusion run, both stages: data, trainers, snapshots, signals, progress; resumable in either stage."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from training.consoles import open_console
from training.data import Dataset, default_cache_dir, load_dataset
from training.diffusion.autoencoder import AutoencoderTrainer, Latents, Pixels, encode_dataset, reconstruct
from training.diffusion.config import DiffusionConfig
from training.diffusion.denoiser import DenoiserTrainer
from training.diffusion.export import AUTOENCODER_FILE, assemble_generator, sample_grid
from training.diffusion.stage import StageTrainer
from training.errors import RunInvalidError, TrainingDivergedError
from training.evaluation.frechet import frechet_distance
from training.evaluation.quick_scores import quick_scores
from training.evaluation.reference import Reference, extract_reference
from training.hardware import fit_to_device
from training.loop import Tick
from training.process import StopSignals, prepare_process
from training.run_dir import RunDir, image_grid
from training.run_page import write_run_page

logger = logging.getLogger(__name__)

LATENTS_FILE = "latents.pt"
RECONSTRUCTIONS = 256
"""Images, at most, that judge the autoencoder."""
GRID_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class DiffusionRequest:
    """What the command line asked for.

    config: of the run; when resuming, the run's own with `changes` made. out: the run folder to create,
    unless `resume` names one to go on with. changes: settings made by hand, for the run's history. hidden:
    names of files the run must not see either, such as a test fold.
    """

    config: DiffusionConfig
    data: Path
    out: Path
    resume: Path | None = None
    device: str = "cpu"
    time_budget_s: float = float("inf")
    threads: int | None = None
    changes: list[str] = field(default_factory=list)
    hidden: frozenset[str] = frozenset()


def run_diffusion(request: DiffusionRequest) -> RunDir:
    """Train until the images or the time are used up, or SIGTERM or Ctrl-C asks to stop; then save.

    Raises TrainingError for what cannot work, and TrainingDivergedError.
    """
    started = time.monotonic()
    prepare_process(request.threads)
    whole = load_dataset(
        request.data,
        resolution=request.config.run.resolution,
        label_mode=request.config.data.label_mode,
        deduplicate=request.config.data.deduplicate,
        class_slugs=request.config.data.classes,
    ).without(request.hidden)
    unseen = whole.blocks == request.config.data.hold_out_block
    dataset = whole.subset(~unseen) if unseen.any() else whole
    device = torch.device(request.device)
    config = replace(request.config, run=fit_to_device(request.config.batches(), device).run)
    if request.resume:
        run_dir = _resume(RunDir.open(request.resume), request, dataset)
        run_dir.write_config(config)
    else:
        run_dir = RunDir.create(request.out, config, dataset, device)
    run_dir.note_start("resumed" if request.resume else "started", device, changes=request.changes)
    with StopSignals() as signals, _progress() as bars, Events(run_dir) as events:
        DiffusionRun(
            config=config,
            run_dir=run_dir,
            dataset=dataset,
            held_out_images=whole.images[unseen],
            device=device,
            stop=lambda: signals.received or time.monotonic() - started > request.time_budget_s,
            bars=bars,
            events=events,
        ).train()
    write_run_page(run_dir)
    return run_dir


def _resume(run_dir: RunDir, request: DiffusionRequest, dataset: Dataset) -> RunDir:
    """Raises RunInvalidError if the data are not those of the run."""
    if run_dir.environment()["dataset"]["digest"] != dataset.digest:
        raise RunInvalidError(
            f"{request.data} is not the dataset of {run_dir.path}: the digests differ; start a new run"
        )
    return run_dir


class Events:
    """Numbers of a run, to stats.jsonl and to TensorBoard alike."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._writer = SummaryWriter(str(run_dir.path / "tensorboard"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def log(self, images_seen: int, **values: float) -> None:
        """One line, seven digits a number, which is what float32 holds."""
        rounded = {name: float(f"{value:.7g}") for name, value in values.items()}
        self._run_dir.log(images_seen=images_seen, **rounded)
        for name, value in rounded.items():
            self._writer.add_scalar(name, value, images_seen)
        self._writer.flush()


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusionRun:
    """The two stages over one run folder.

    Beside what every run folder has: `reconstructions/`; after stage 1 `autoencoder.pt` and `latents.pt`.
    In stats.jsonl the names of a stage's numbers begin with the stage; each counts its own images seen.
    config: with every `auto` decided. held_out_images: uint8 [M, R, R, 3], not trained on; M may be 0.
    """

    config: DiffusionConfig
    run_dir: RunDir
    dataset: Dataset
    held_out_images: Pixels
    device: torch.device
    stop: Callable[[], bool]
    bars: Progress
    events: Events

    def train(self) -> None:
        """Go on where the folder's state stands."""
        latents = self._load_latents() or self._first_stage()
        if latents:
            self._second_stage(latents)

    def _first_stage(self) -> Latents | None:
        """Autoencoder, its judgement and the dataset's latents; None if told to stop before the end."""
        trainer = AutoencoderTrainer(self.config, self.dataset, self.device)
        images = int(self.config.autoencoder.total_kimg * 1000)
        self._run_stage(trainer, images, lambda: self._save_reconstructions(trainer))
        if trainer.images_seen < images:
            return None
        autoencoder = trainer.averaged()
        quality = self._judge(autoencoder)
        data, task = self.config.data, self.bars.add_task("encode", total=len(self.dataset), rate="")
        latents = encode_dataset(
            autoencoder,
            self.dataset,
            flips=data.flips,
            transpose=data.rot90,
            progress=lambda done, _: self.bars.update(task, completed=done),
        )
        stage = {
            "autoencoder": {name: value.cpu() for name, value in autoencoder.state_dict().items()},
            "scaling_factor": latents.scaling_factor,
            "seconds_trained": trainer.seconds_trained,
            "quality": quality,
        }
        self.run_dir.save_state(stage, AUTOENCODER_FILE)
        self.run_dir.save_state({"values": latents.values, "seen": latents.seen}, LATENTS_FILE)
        return latents

    def _second_stage(self, latents: Latents) -> None:
        first = self.run_dir.load_state(AUTOENCODER_FILE)
        reference = self._reference()
        trainer = DenoiserTrainer(self.config, len(self.dataset.classes), latents, self.device)
        best = self.run_dir.best_score()

        def snapshot() -> None:
            nonlocal best
            generator = assemble_generator(
                self.config, len(self.dataset.classes), first, trainer.average, self.device
            )
            self.run_dir.save_samples(sample_grid(generator, GRID_COLUMNS), trainer.images_seen, GRID_COLUMNS)
            if reference is None:
                return
            scores = quick_scores(generator, reference, self.config.run.score_images)
            if scores["kid/mean"] < best:  # saved first: a score that is written down is the one to beat
                best = scores["kid/mean"]
                self.run_dir.save_state(self.state(trainer), "best.pt")
            self.events.log(trainer.images_seen, score=scores["kid/mean"], **scores)

        self._run_stage(trainer, int(self.config.run.total_kimg * 1000), snapshot)

    def _run_stage(self, trainer: StageTrainer, images: int, snapshot: Callable[[], None]) -> None:
        """Train a stage from where the folder's state stands to its end or until told to stop, and save."""
        if (self.run_dir.path / "state.pt").exists():
            state = self.run_dir.load_state()
            if state["stage"] == trainer.name:
                self._load(trainer, state)
        task = self.bars.add_task(trainer.name, total=images, completed=trainer.images_seen, rate="")
        recorder = _Recorder(self, trainer, task, snapshot)
        try:
            trainer.run_until(images, stop=self.stop, on_tick=recorder.tick)
        except TrainingDivergedError as error:
            raise self._diverged(error) from None
        self.run_dir.save_state(self.state(trainer))
        if trainer.images_seen >= images:
            recorder.finish()

    def _load(self, trainer: StageTrainer, state: dict[str, Any]) -> None:
        try:
            trainer.load_state_dict(state["trainer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise RunInvalidError(
                f"the state of {self.run_dir.path} does not fit its settings: {reason}"
            ) from error

    def _diverged(self, error: TrainingDivergedError) -> TrainingDivergedError:
        """The error with what is left to go on from; nothing is saved over it."""
        self.run_dir.log(images_seen=error.images_seen, diverged=True)
        path = self.run_dir.path / "state.pt"
        kept = f"the last good state is {path}" if path.exists() else "no state was saved yet"
        return TrainingDivergedError(error.images_seen, error.losses, kept)

    def state(self, trainer: StageTrainer) -> dict[str, Any]:
        """What `state.pt` holds: which stage it is of, and all of that."""
        return {
            "stage": trainer.name,
            "classes": list(self.dataset.classes),
            "images_seen": trainer.images_seen,
            "trainer": trainer.state_dict(),
        }

    def _load_latents(self) -> Latents | None:
        if not (self.run_dir.path / LATENTS_FILE).exists():
            return None
        stored = self.run_dir.load_state(LATENTS_FILE)
        labels = torch.from_numpy(self.dataset.labels)
        scaling_factor = self.run_dir.load_state(AUTOENCODER_FILE)["scaling_factor"]
        return Latents(stored["values"], stored["seen"], labels, scaling_factor)

    def _judge(self, autoencoder: nn.Module) -> dict[str, float]:
        """PSNR in dB of seen and unseen images; where the run scores, also the latter's Frechet distance."""
        every = max(len(self.dataset) // RECONSTRUCTIONS, 1)
        quality = {"psnr_db": reconstruct(autoencoder, self.dataset.images[::every])[1]}
        unseen = self.held_out_images[:: max(len(self.held_out_images) // RECONSTRUCTIONS, 1)]
        if len(unseen):
            decoded, quality["psnr_db/held_out"] = reconstruct(autoencoder, unseen)
            if self.config.run.score_images and len(unseen) > 1:
                extractor = FeatureExtractor(2, device=self.device)
                distance = frechet_distance(extractor.features(decoded), extractor.features(unseen))
                quality["frechet/held_out"] = distance
        images_seen = int(self.config.autoencoder.total_kimg * 1000)
        self.events.log(images_seen, **{f"autoencoder/{name}": value for name, value in quality.items()})
        worst = min(value for name, value in quality.items() if name.startswith("psnr_db"))
        if worst < self.config.autoencoder.min_psnr_db:
            logger.warning(
                "the autoencoder gives images back at %.1f dB, not at %.1f dB: samples will be blurred",
                worst,
                self.config.autoencoder.min_psnr_db,
            )
        return quality

    def _save_reconstructions(self, trainer: AutoencoderTrainer) -> None:
        """A grid of training images, each row followed by what became of it."""
        every = max(len(self.dataset) // GRID_COLUMNS, 1)
        pixels = self.dataset.images[::every][:GRID_COLUMNS]
        decoded, _ = reconstruct(trainer.averaged(), pixels)
        grid = image_grid(np.concatenate([pixels, decoded]), len(pixels))
        self.run_dir.save_image(grid, f"reconstructions/{trainer.images_seen:08d}")

    def _reference(self) -> Reference | None:
        if not self.config.run.score_images:
            return None
        return extract_reference(
            self.dataset, FeatureExtractor(2, device=self.device), cache=FeatureCache(default_cache_dir())
        )


class _Recorder:
    """Logs every tick; at every interval saves the state and takes a snapshot."""

    def __init__(
        self, run: DiffusionRun, trainer: StageTrainer, task: TaskID, snapshot: Callable[[], None]
    ) -> None:
        self.run = run
        self.trainer = trainer
        self.task = task
        self.snapshot = snapshot
        self.last_snapshot = -1
        self.interval = max(int(run.config.run.snapshot_kimg * 1000), 1)
        self.next_snapshot = (trainer.images_seen // self.interval + 1) * self.interval

    def tick(self, tick: Tick) -> None:
        values = {"images_per_second": tick.images_per_second, **tick.losses}
        name = self.trainer.name
        self.run.events.log(tick.images_seen, **{f"{name}/{key}": value for key, value in values.items()})
        rate = f"{tick.images_per_second:.1f} images/s"
        self.run.bars.update(self.task, completed=tick.images_seen, rate=rate)
        if tick.images_seen >= self.next_snapshot:
            self.run.run_dir.save_state(self.run.state(self.trainer))
            self._take_snapshot()
            self.next_snapshot = (tick.images_seen // self.interval + 1) * self.interval

    def finish(self) -> None:
        """The snapshot of the end, unless it was just taken."""
        if self.last_snapshot != self.trainer.images_seen:
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        with _untouched_random(self.trainer.device):
            self.snapshot()
        self.last_snapshot = self.trainer.images_seen
        write_run_page(self.run.run_dir)


@contextmanager
def _untouched_random(device: torch.device) -> Iterator[None]:
    """Fresh networks draw their weights from the generator that dropout uses; put it back after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    rate = TextColumn("{task.fields[rate]}")
    return Progress(*columns, rate, TimeRemainingColumn(), console=open_console(err=True))
