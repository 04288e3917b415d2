"""One diffusion run, both stages: data, trainers, snapshots, signals, progress; resumable in either stage."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import nn

from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from training.data import Dataset, default_cache_dir, load_dataset
from training.diffusion.autoencoder import AutoencoderTrainer, Latents, Pixels, encode_dataset, reconstruct
from training.diffusion.config import DiffusionConfig
from training.diffusion.denoiser import DenoiserTrainer
from training.diffusion.export import AUTOENCODER_FILE, assemble_generator, sample_grid
from training.diffusion.stage import StageTrainer
from training.evaluation.frechet import frechet_distance
from training.evaluation.quick_scores import quick_scores
from training.evaluation.reference import Reference, extract_reference
from training.hardware import fit_to_device
from training.loop import Tick
from training.process import StopSignals, prepare_process
from training.run_dir import RunDir, image_grid

logger = logging.getLogger(__name__)

LATENTS_FILE = "latents.pt"
RECONSTRUCTIONS = 256
"""Images, at most, that judge the autoencoder."""
GRID_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class DiffusionRequest:
    """What the command line asked for; `resume` goes on with a run folder and its configuration."""

    config: DiffusionConfig
    data: Path
    out: Path
    resume: Path | None = None
    device: str = "cpu"
    time_budget_s: float = float("inf")
    threads: int | None = None


def run_diffusion(request: DiffusionRequest) -> RunDir:
    """Train until the images or the time are used up, or SIGTERM or Ctrl-C asks to stop; then save.

    Raises TrainingError for what cannot work.
    """
    started = time.monotonic()
    prepare_process(request.threads)
    config, run_dir = request.config, None
    if request.resume:
        run_dir = RunDir.open(request.resume)
        config = DiffusionConfig.from_dict(run_dir.read_config())
    whole = load_dataset(
        request.data,
        resolution=config.run.resolution,
        label_mode=config.data.label_mode,
        deduplicate=config.data.deduplicate,
    )
    unseen = whole.blocks == config.data.hold_out_block
    dataset = whole.subset(~unseen) if config.data.hold_out_block >= 0 else whole
    device = torch.device(request.device)
    config = replace(config, run=fit_to_device(config.batches(), device).run)
    run_dir = run_dir or RunDir.create(request.out, config, dataset, device)
    with StopSignals() as signals, _progress() as bars:
        stop = lambda: signals.received or time.monotonic() - started > request.time_budget_s  # noqa: E731
        DiffusionRun(config, run_dir, dataset, whole.images[unseen], device, stop, bars).train()
    return run_dir


class DiffusionRun:
    """The two stages over one run folder.

    Beside what every run folder has: `autoencoder.pt` once stage 1 is done, `latents.pt`, `samples/` of both.
    held_out_images: uint8 [M, R, R, 3], not trained on; M may be 0.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        run_dir: RunDir,
        dataset: Dataset,
        held_out_images: Pixels,
        device: torch.device,
        stop: Callable[[], bool],
        bars: Progress,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.dataset = dataset
        self.held_out_images = held_out_images
        self.device = device
        self.stop = stop
        self.bars = bars

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
            self.run_dir.log(images_seen=trainer.images_seen, score=scores["kid/mean"], **scores)
            if scores["kid/mean"] < best:
                best = scores["kid/mean"]
                self.run_dir.save_state(self._state(trainer), "best.pt")

        self._run_stage(trainer, int(self.config.run.total_kimg * 1000), snapshot)

    def _run_stage(self, trainer: StageTrainer, images: int, snapshot: Callable[[], None]) -> None:
        """Train a stage from where the folder's state stands to its end or until told to stop, and save."""
        if (self.run_dir.path / "state.pt").exists():
            state = self.run_dir.load_state()
            if state["stage"] == trainer.name:
                trainer.load_state_dict(state["trainer"])
        task = self.bars.add_task(trainer.name, total=images, completed=trainer.images_seen, rate="")
        recorder = _Recorder(self, trainer, task, snapshot)
        trainer.run_until(images, stop=self.stop, on_tick=recorder.tick)
        self.run_dir.save_state(self._state(trainer))

    def _state(self, trainer: StageTrainer) -> dict[str, Any]:
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
        self.run_dir.log(stage="autoencoder", **{name: round(value, 3) for name, value in quality.items()})
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
        self.run_dir.save_image(grid, f"autoencoder-{trainer.images_seen:08d}")

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
        self.interval = max(int(run.config.run.snapshot_kimg * 1000), 1)
        self.next_snapshot = (trainer.images_seen // self.interval + 1) * self.interval

    def tick(self, tick: Tick) -> None:
        rate = round(tick.images_per_second, 2)
        losses = {name: round(value, 5) for name, value in tick.losses.items()}
        self.run.run_dir.log(
            stage=self.trainer.name, images_seen=tick.images_seen, images_per_second=rate, **losses
        )
        self.run.bars.update(self.task, completed=tick.images_seen, rate=f"{rate:.1f} images/s")
        if tick.images_seen >= self.next_snapshot:
            self.run.run_dir.save_state(self.run._state(self.trainer))
            with _untouched_random(self.trainer.device):
                self.snapshot()
            self.next_snapshot = (tick.images_seen // self.interval + 1) * self.interval


@contextmanager
def _untouched_random(device: torch.device) -> Iterator[None]:
    """Fresh networks draw their weights from the generator that dropout uses; put it back after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    rate = TextColumn("{task.fields[rate]}")
    return Progress(*columns, rate, TimeRemainingColumn(), console=Console(stderr=True))
