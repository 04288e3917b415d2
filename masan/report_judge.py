"""What judges a checkpoint for a report: training's evaluation, on real images or what is kept of them.

Loads torch when it is called, not before.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from masan.report_maker import Progress, ReportDataError, ReportReferenceError
from model_store.report import QualityReport
from model_store.store import Checkpoint, ModelStore

if TYPE_CHECKING:
    import torch

    from model_store.quality.reference_set import ReferenceSet
    from training.data import Dataset
    from training.evaluation.networks import PublishedNetworks
    from training.evaluation.reference import RealReference

logger = logging.getLogger(__name__)


class CheckpointJudge:
    """Judges checkpoints of a store. data: real images, None where there are none.

    A checkpoint is judged on the real images if they are those of its own reference set, or if it has none;
    else on that set. cache_dir: where features of real images are kept between reports. device: as
    MASAN_DEVICE.
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
        kept = self._kept(checkpoint)
        if kept is None and self._data is None:
            raise ReportReferenceError(
                f"{checkpoint.reference} brings no reference set, and this process has no real images: set"
                " MASAN_REPORT_DATA to a folder with one folder of images per class"
            )
        import torch

        from model_store.sampling import make_reproducible
        from model_store.weights import load_generator
        from training.errors import TrainingError
        from training.evaluation.report import Drawing, evaluate_against
        from worker.device import choose_device

        torch.set_num_threads(self._threads)
        make_reproducible()
        device = choose_device(self._device)
        generator = load_generator(self._store, checkpoint, device)
        manifest = checkpoint.manifest
        try:
            reference, networks = self._reference(checkpoint, kept, device, progress)
            return evaluate_against(
                reference,
                generator,
                manifest.digest,
                manifest.classes,
                drawing=Drawing(n_fake=n),
                networks=networks,
                workers=self._threads,
                progress=progress,
            )
        except (TrainingError, ValueError) as error:
            raise ReportDataError(f"{checkpoint.reference} cannot be judged: {error}") from error

    def _kept(self, checkpoint: Checkpoint) -> ReferenceSet | None:
        """The checkpoint's own reference set, None if it has none. Raises ReportDataError."""
        from model_store.quality.reference_set import (
            ReferenceSetAbsentError,
            ReferenceSetInvalidError,
            load_reference_set,
        )

        try:
            return load_reference_set(self._store, checkpoint)
        except ReferenceSetAbsentError:
            return None
        except ReferenceSetInvalidError as error:
            raise ReportDataError(str(error)) from error

    def _reference(
        self, checkpoint: Checkpoint, kept: ReferenceSet | None, device: torch.device, progress: Progress
    ) -> tuple[RealReference, PublishedNetworks]:
        """What to judge against, and the networks that can. Raises TrainingError."""
        from model_store.quality.feature_cache import FeatureCache
        from training.evaluation.command import NEEDS_IMAGES
        from training.evaluation.kept_reference import KeptReference
        from training.evaluation.networks import NetworkOptions, PublishedNetworks, find_networks
        from training.evaluation.reference import DatasetReference

        dataset = self._dataset(checkpoint, kept, progress)
        if dataset is not None:
            reference = DatasetReference(dataset, cache=FeatureCache(self._cache_dir), deduplicated=True)
            return reference, find_networks(NetworkOptions(), device=device)
        if kept is None:
            raise ReportReferenceError(f"{checkpoint.reference} has nothing to be judged against")
        return KeptReference(kept), PublishedNetworks(fid_reason=NEEDS_IMAGES, cmmd_reason=NEEDS_IMAGES)

    def _dataset(
        self, checkpoint: Checkpoint, kept: ReferenceSet | None, progress: Progress
    ) -> Dataset | None:
        """The real images, None if the checkpoint's own set is of others. Raises TrainingError."""
        if self._data is None:
            return None
        from training.data import load_dataset
        from training.errors import TrainingError

        try:
            dataset = load_dataset(
                self._data,
                resolution=checkpoint.manifest.resolution,
                deduplicate=True,
                cache_dir=self._cache_dir,
                progress=lambda done, total: progress("read images", done, total),
            )
        except TrainingError as error:
            if kept is None:
                raise
            extra = {"model": checkpoint.reference, "reason": str(error)}
            logger.warning("dataset passed over for the checkpoint's own reference set", extra=extra)
            return None
        return dataset if kept is None or kept.info.digest == dataset.digest else None
