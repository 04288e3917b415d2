"""What judges a checkpoint for a report: training's evaluation, on the real images at hand.

Loads torch when it is called, not before.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from masan.report_maker import Progress, ReportDataError, ReportReferenceError
from model_store.report import QualityReport
from model_store.store import Checkpoint, ModelStore

if TYPE_CHECKING:
    from training.evaluation.reference import RealImages

logger = logging.getLogger(__name__)


class CheckpointJudge:
    """Judges checkpoints of a store. data: real images, where a checkpoint brings no reference of its own.

    cache_dir: where features of real images are kept between reports. device: as MASAN_DEVICE.
    """

    def __init__(
        self, store: ModelStore, *, data: Path | None, cache_dir: Path, device: str, threads: int
    ) -> None:
        self._store = store
        self._data = data
        self._cache_dir = cache_dir.expanduser()
        self._device = device
        self._threads = threads

    def __call__(self, checkpoint: Checkpoint, n: int, progress: Progress) -> QualityReport:
        """Raises ReportReferenceError, ReportDataError, and what loading the checkpoint raises."""
        real = self._real_images(checkpoint, progress)
        import torch

        from model_store.quality.feature_cache import FeatureCache
        from model_store.sampling import make_reproducible
        from model_store.weights import load_generator
        from training.errors import TrainingError
        from training.evaluation.report import Drawing, evaluate_checkpoint
        from worker.device import choose_device

        torch.set_num_threads(self._threads)
        make_reproducible()
        generator = load_generator(self._store, checkpoint, choose_device(self._device))
        manifest = checkpoint.manifest
        try:
            return evaluate_checkpoint(
                generator,
                manifest.digest,
                manifest.classes,
                real,
                drawing=Drawing(n_fake=n),
                cache=FeatureCache(self._cache_dir),
                deduplicated=True,
                progress=progress,
            )
        except (TrainingError, ValueError) as error:
            raise ReportDataError(f"{checkpoint.reference} cannot be judged: {error}") from error

    def _real_images(self, checkpoint: Checkpoint, progress: Progress) -> "RealImages":
        if self._data is None:
            raise ReportReferenceError(
                f"{checkpoint.reference} brings no reference set, and this process has no real images: set"
                " MASAN_REPORT_DATA to a folder with one folder of images per class"
            )
        from training.data import load_dataset
        from training.errors import TrainingError

        try:
            return load_dataset(
                self._data,
                resolution=checkpoint.manifest.resolution,
                deduplicate=True,
                cache_dir=self._cache_dir,
                progress=lambda done, total: progress("read images", done, total),
            )
        except TrainingError as error:
            raise ReportDataError(str(error)) from error
