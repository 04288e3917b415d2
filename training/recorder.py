"""What a run leaves behind while it trains: numbers at every tick; state, samples and scores at snapshots."""

from typing import Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.tensorboard import SummaryWriter

from model_store.generators.registry import Generator
from training.loop import Tick, Trainer
from training.overfitting import OverfittingCheck
from training.progress import TrainingProgress
from training.run_dir import RunDir, image_grid
from training.run_page import write_run_page
from training.scoring import Scorer

GRID_PER_CLASS: Final = 8


class Recorder:
    """Writes the run folder. Ranks other than the first only count along.

    Every `snapshot_kimg` the state is saved, a grid drawn and, with a scorer, the generator scored and the
    discriminators checked; the state with the lowest KID is kept as best.pt.
    """

    def __init__(
        self,
        trainer: Trainer,
        run_dir: RunDir | None,
        scorer: Scorer | None,
        progress: TrainingProgress,
        overfitting: OverfittingCheck | None = None,
    ) -> None:
        self.trainer = trainer
        self.run_dir = run_dir
        self.scorer = scorer
        self.overfitting = overfitting
        self.progress = progress
        self.interval = max(int(trainer.config.run.snapshot_kimg * 1000), 1)
        self.last_snapshot = trainer.images_seen
        if run_dir is not None:
            self.best = run_dir.best_score()
            events = run_dir.path / "tensorboard"
            self.events = SummaryWriter(str(events), purge_step=trainer.images_seen)

    def tick(self, tick: Tick) -> None:
        """Note a tick; take a snapshot where one is due."""
        if self.run_dir is None:
            return
        losses = {name: _significant(value) for name, value in tick.losses.items()}
        rate = round(tick.images_per_second, 2)
        self.run_dir.log(images_seen=tick.images_seen, images_per_second=rate, **losses)
        self._scalars({f"loss/{name}": value for name, value in losses.items()} | {"images_per_second": rate})
        self.progress.update(tick)
        if tick.images_seen // self.interval > self.last_snapshot // self.interval:
            self.snapshot()

    def snapshot(self, *, scored: bool = True) -> None:
        """Save the state, draw samples and, if `scored`, score the generator."""
        if self.run_dir is None:
            return
        seen = self.last_snapshot = self.trainer.images_seen
        state = self.trainer.state_dict()
        self.run_dir.save_state(state)
        grid = sample_grid(self.trainer)
        self.run_dir.save_samples(grid, seen, GRID_PER_CLASS)
        self.events.add_image("samples", image_grid(grid, GRID_PER_CLASS), seen, dataformats="HWC")
        if self.scorer and scored:
            scores = self.scorer(self.trainer)
            score = scores["kid/mean"]
            if score < self.best:  # saved first: a score that is written down is the one to beat
                self.best = score
                self.run_dir.save_state(state, "best.pt")
            if self.overfitting is not None:
                scores |= self.overfitting(self.trainer)
            self.run_dir.log(images_seen=seen, score=score, **scores)
            self._scalars(scores)
            self.progress.say(f"{seen:,} images: KID {score:.4f} (best {self.best:.4f})")
        write_run_page(self.run_dir)

    def finish(self, *, scored: bool) -> None:
        """Leave everything as it is at the end: a last snapshot, unless there was one just now."""
        if self.run_dir is None:
            return
        if self.trainer.images_seen > self.last_snapshot:
            self.snapshot(scored=scored)
        else:
            self.run_dir.save_state(self.trainer.state_dict())
            write_run_page(self.run_dir)

    def close(self) -> None:
        """Close the event file."""
        if self.run_dir is not None:
            self.events.close()

    def _scalars(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.events.add_scalar(name, value, self.trainer.images_seen)
        self.events.flush()


@torch.no_grad()
def sample_grid(trainer: Trainer) -> npt.NDArray[np.uint8]:
    """GRID_PER_CLASS images of each class, [K * GRID_PER_CLASS, H, W, 3], always from the same latents."""
    generator = cast("Generator", trainer.export_generator())
    random = torch.Generator().manual_seed(0)
    rows = []
    for label in torch.eye(len(trainer.classes)):
        z = torch.randn(GRID_PER_CLASS, generator.latent_dim, generator=random)
        images = generator(z, label.expand(GRID_PER_CLASS, -1))
        rows.append(((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
    return np.asarray(torch.cat(rows).numpy())


def _significant(value: float) -> float:
    """Seven digits, which is what float32 holds."""
    return float(f"{value:.7g}")
