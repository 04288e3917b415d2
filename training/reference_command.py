"""`masan reference build`: keep what judges need of real images, as a file or beside a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from model_store.errors import ModelStoreError
from model_store.manifest import REFERENCE_FILE
from model_store.quality.feature_cache import DEFAULT_CACHE_FOLDER, FeatureCache
from model_store.quality.reference_set import ReferenceSet, attach_reference_set
from model_store.quality.series import HELD_OUT_BLOCK
from model_store.store import Checkpoint, ModelStore
from training.cli import ClassSlugs, parse_classes
from training.consoles import open_console
from training.data import Dataset, load_dataset
from training.errors import TrainingError
from training.evaluation.kept_reference import make_reference_set
from training.evaluation.reference import DatasetReference, Progress
from training.json_output import AsJson, print_json
from training.stages import stage_bars
from training.stores import LOCAL_STORE

DEFAULT_RESOLUTION = 256

app = typer.Typer(no_args_is_help=True, help="Keep what judges need of real images, without their pixels.")


@app.callback()
def reference() -> None:
    """Keep what judges need of real images, without their pixels."""


@app.command()
def build(
    data: Annotated[Path, typer.Option("--data", help="Real images, a folder per class, or a packed file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="name@version: add it to that checkpoint, which has none.")
    ] = None,
    store: Annotated[
        str, typer.Option(envvar="MASAN_MODEL_STORE_URL", help="Model store of --model.")
    ] = LOCAL_STORE,
    resolution: Annotated[
        int | None,
        typer.Option(min=16, help="Side of the images; default: the checkpoint's, or 256."),
    ] = None,
    classes: ClassSlugs = None,
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", help="Where features of real images are kept.")
    ] = DEFAULT_CACHE_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make a reference set: features, colours and projected thumbnails of real images, and no pixel of them.

    With it `masan evaluate` and the service judge a checkpoint where the images are not.
    """
    with stage_bars() as tell:
        try:
            images = _Images(data, parse_classes(classes), cache_dir.expanduser())
            if out is not None and model is None:
                built = _write(out, images.load(resolution or DEFAULT_RESOLUTION, tell), images, tell)
            elif model is not None and out is None:
                built = _attach(ModelStore(store), model, resolution, images, tell)
            else:
                raise ValueError("give either --out FILE or --model NAME@VERSION")
        except (ModelStoreError, TrainingError, ValueError) as error:
            raise typer.BadParameter(str(error)) from error
    if as_json:
        print_json(built.document())
    else:
        open_console().print(built.describe(), soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class _Images:
    """Where the real images are, how their folders are called, and where their features are kept."""

    data: Path
    slugs: dict[str, str]
    cache_dir: Path

    def load(self, resolution: int, tell: Progress) -> Dataset:
        """Raises DatasetInvalidError."""
        return load_dataset(
            self.data,
            resolution=resolution,
            class_slugs=self.slugs,
            cache_dir=self.cache_dir,
            progress=lambda done, total: tell("read images", done, total),
        )

    def reference_set(self, dataset: Dataset, tell: Progress) -> ReferenceSet:
        """What is kept of a dataset that was loaded from here."""
        cache = FeatureCache(self.cache_dir)
        reference = DatasetReference(dataset, cache=cache, deduplicated=True)
        return make_reference_set(dataset, reference, progress=tell)


@dataclass(frozen=True)
class _Built:
    """A reference set, and where it is now: in a file, or beside a checkpoint."""

    made: ReferenceSet
    size_bytes: int
    path: Path | None = None
    checkpoint: str | None = None

    def describe(self) -> str:
        """A line for people."""
        where = f"wrote {self.path}" if self.path else f"added to {self.checkpoint}"
        info = self.made.info
        return (
            f"{where}: {len(self.made.labels)} images of {', '.join(info.classes)},"
            f" {self.size_bytes / 1e6:.2f} MB, digest {info.digest[:16]}"
        )

    def document(self) -> dict[str, Any]:
        """The same for JSON. path, checkpoint: one of them is None."""
        return {
            "path": str(self.path) if self.path else None,
            "checkpoint": self.checkpoint,
            "images": len(self.made.labels),
            "classes": list(self.made.info.classes),
            "bytes": self.size_bytes,
            "digest": self.made.info.digest,
        }


def _write(out: Path, dataset: Dataset, images: _Images, tell: Progress) -> _Built:
    made = images.reference_set(dataset, tell)
    content = made.encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)
    return _Built(made, len(content), path=out)


def _attach(store: ModelStore, model: str, resolution: int | None, images: _Images, tell: Progress) -> _Built:
    checkpoint = store.resolve(model)
    dataset = images.load(_resolution_of(checkpoint, resolution), tell)
    _require_trained_on(checkpoint, dataset)
    made = images.reference_set(dataset, tell)
    attached = attach_reference_set(store, checkpoint, made)
    size = sum(entry.size_bytes for entry in attached.manifest.reports if entry.path == REFERENCE_FILE)
    return _Built(made, size, checkpoint=attached.reference)


def _resolution_of(checkpoint: Checkpoint, wanted: int | None) -> int:
    """Raises ValueError for another resolution than the checkpoint's."""
    own = checkpoint.manifest.resolution
    if wanted not in (None, own):
        raise ValueError(f"--resolution is {wanted}; {checkpoint.reference} draws {own} px")
    return own


def _require_trained_on(checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Raises ValueError unless the checkpoint learned from these images, or all but the held-out block."""
    digests = (dataset.digest, dataset.subset(dataset.blocks != HELD_OUT_BLOCK).digest)
    if checkpoint.manifest.dataset.digest not in digests:
        raise ValueError(
            f"{dataset.root} does not hold the images that {checkpoint.reference} learned from, with their"
            " cleaning and class slugs: the digests differ"
        )
