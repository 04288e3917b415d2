"""From a run's averaged weights to a published checkpoint: fold, judge, describe, publish."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from model_store.generators.registry import Generator
from model_store.manifest import REFERENCE_FILE, DatasetInfo, FileEntry, Manifest, TrainingHistory
from model_store.quality.feature_cache import FeatureCache
from model_store.report import REPORT_FILE, QualityReport
from model_store.report_page import REPORT_PAGE_FILE, render_report
from model_store.sampling import make_reproducible
from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, decode_weights, encode_weights
from training.config import DataConfig, RunConfig
from training.data import Dataset, default_cache_dir, load_dataset
from training.errors import DatasetInvalidError, RunInvalidError
from training.evaluation.kept_reference import make_reference_set
from training.evaluation.memorization import CopiesFoundError, describe, flagged_pairs
from training.evaluation.reference import DatasetReference, Progress
from training.evaluation.report import Drawing, evaluate_against
from training.evaluation.report_images import Painter, contact_sheets
from training.held import published_generator
from training.kept_discriminators import DISCRIMINATORS_FILE, encode_discriminators
from training.run_dir import RunDir

INTENDED_USE: Final = (
    "Labelled synthetic images to add to the training data of image classifiers, to test pipelines and to"
    " teach."
)
NOT_FOR: Final = (
    "Diagnosis, or any statement about a patient. Synthetic images must not enter a clinical record or the"
    " test set of a clinical evaluation."
)
REFUSED_REPORT_FILE: Final = "refused-report.json"
"""In a run folder: the report that a publication was refused for."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What a publication says beyond what the run folder knows.

    version: None takes the next whole number. data: the images trained on; None looks where the run found
    them. state: `best.pt` is the snapshot with the lowest score, `state.pt` the last, also taken where no
    snapshot was scored. classes: folder -> slug, where the checkpoint shall name classes otherwise than the
    run. n_fake: images per class the report draws. allow_copies: publish also if some of them are copies of
    training images; the manifest says so. reference_set: let what is kept of the real images ship along.
    discriminators: let the run's ship along too, for a later run to go on with.
    """

    name: str
    version: str | None = None
    data: Path | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    state: str = "best.pt"
    dataset_name: str = "folder"
    dataset_license: str = "unknown"
    license: str = "Apache-2.0"
    notes: str = ""
    n_fake: int = 500
    allow_copies: bool = False
    reference_set: bool = True
    discriminators: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedGenerator:
    """What a run made, of whatever architecture: a plain network on the CPU, and how it came about.

    config: arguments of the architecture, as they stand in a manifest. discriminators: as
    `encode_discriminators` gives them, None for what has none.
    """

    network: nn.Module
    architecture: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    recipe: str
    data: DataConfig
    run: RunConfig
    images_seen: int
    seconds_trained: float
    discriminators: bytes | None = None


def publish_run(
    run_dir: RunDir, store: ModelStore, publication: Publication, progress: Progress | None = None
) -> Checkpoint:
    """Publish a run's generator with its report. Raises what `publish_generator` raises."""
    scored = (run_dir.path / publication.state).exists()
    trained = trained_by_run(run_dir, publication.state if scored else "state.pt")
    return publish_generator(run_dir, store, publication, trained, progress)


def trained_by_run(run_dir: RunDir, state_file: str = "state.pt") -> TrainedGenerator:
    """A run's averaged generator as that state has it. Raises RunInvalidError without one."""
    config = run_dir.config()
    state = run_dir.load_state(state_file)
    classes = tuple(state["classes"])
    kind_shares = state["kinds"]["shares"] if state.get("kinds") else ()
    network, architecture, arguments = published_generator(
        config, len(classes), state["G_ema"], state["normalize_G"], kind_shares, state.get("held", [])
    )
    return TrainedGenerator(
        network=network,
        architecture=architecture,
        config=arguments,
        classes=classes,
        recipe=config.recipe,
        data=config.data,
        run=config.run,
        images_seen=state["images_seen"],
        seconds_trained=state["seconds_trained"],
        discriminators=encode_discriminators(state) if state["D"] else None,
    )


def publish_generator(
    run_dir: RunDir,
    store: ModelStore,
    publication: Publication,
    trained: TrainedGenerator,
    progress: Progress | None = None,
) -> Checkpoint:
    """Judge a generator against the run's data and publish it. Weights are stored and judged as float16.

    Raises RunInvalidError if the data are not those of the run, CopiesFoundError if a generated image is a
    copy of a training image, ModelAlreadyPublishedError, and what `evaluate_against` raises.
    """
    version = publication.version or _next_version(store, publication.name)
    store.check_free(publication.name, version)
    drawing = Drawing(n_fake=publication.n_fake)
    environment = run_dir.environment()
    weights = encode_weights(trained.network, torch.float16)
    dataset = _dataset_of(run_dir, publication.data, trained)
    dataset = replace(dataset, classes=_slugs(dataset, publication.classes))
    manifest = Manifest(
        name=publication.name,
        version=version,
        architecture=trained.architecture,
        config=trained.config,
        classes=dataset.classes,
        resolution=trained.run.resolution,
        weights=_entry(WEIGHTS_FILE, weights),
        dataset=_dataset_info(publication, trained.data, environment["dataset"], dataset),
        training=TrainingHistory(
            recipe=trained.recipe,
            images_seen=trained.images_seen,
            hours=round(trained.seconds_trained / 3600, 2),
            device=environment["device"],
            seed=trained.run.seed,
            commit=environment["commit"],
            torch_version=environment["torch"],
            finished_at=datetime.now(UTC),
            notes=" ".join(part for part in (publication.notes, _lineage(run_dir)) if part),
        ),
        license=publication.license,
        intended_use=INTENDED_USE,
        not_for=NOT_FOR,
    )
    make_reproducible()
    generator: Generator = decode_weights(weights, manifest, WEIGHTS_FILE)
    reference = DatasetReference(
        dataset, cache=FeatureCache(default_cache_dir()), deduplicated=trained.data.deduplicate
    )
    report = evaluate_against(
        reference,
        generator,
        manifest.digest,
        dataset.classes,
        drawing=drawing,
        progress=progress,
    )
    overrides = _overrides(run_dir, report, publication)
    painter = Painter.of(report, generator, dataset.classes, progress)
    page = render_report(report, contact_sheets(painter), checkpoint=manifest.reference)
    files = {REPORT_FILE: _report_bytes(report), REPORT_PAGE_FILE: page.encode()}
    if publication.reference_set:
        files[REFERENCE_FILE] = make_reference_set(dataset, reference, progress=progress).encode()
    if publication.discriminators and trained.discriminators is not None:
        files[DISCRIMINATORS_FILE] = trained.discriminators
    entries = tuple(_entry(path, content) for path, content in files.items())
    manifest = manifest.model_copy(update={"reports": entries, "overrides": overrides})
    return store.publish(manifest, {WEIGHTS_FILE: weights, **files})


def _overrides(run_dir: RunDir, report: QualityReport, publication: Publication) -> tuple[str, ...]:
    """What speaks against publishing and is allowed, for the manifest.

    Raises CopiesFoundError for copies that are not allowed; their report is kept in the run folder.
    """
    pairs = flagged_pairs(report)
    if not pairs:
        return ()
    if not publication.allow_copies:
        kept = run_dir.path / REFUSED_REPORT_FILE
        kept.write_bytes(_report_bytes(report))
        raise CopiesFoundError(pairs, f"look at them ({kept} names each), then --allow-copies publishes")
    return (f"allowed although {describe(pairs)}",)


def _report_bytes(report: QualityReport) -> bytes:
    return (report.model_dump_json(indent=1) + "\n").encode()


def _dataset_of(run_dir: RunDir, data: Path | None, trained: TrainedGenerator) -> Dataset:
    """All images of the run's dataset, those held out too. Raises RunInvalidError for other images."""
    recorded = run_dir.environment()["dataset"]
    path = data or (Path(recorded["path"]) if "path" in recorded else None)
    if path is None:
        raise RunInvalidError(f"{run_dir.path} does not know where its images lie; give --data")
    dataset = load_dataset(
        path,
        resolution=trained.run.resolution,
        label_mode=trained.data.label_mode,
        deduplicate=trained.data.deduplicate,
        class_slugs=trained.data.classes,
    )
    is_held_out = dataset.blocks == trained.data.hold_out_block
    trained_on = {dataset.subset(~is_held_out).digest}
    if not is_held_out.any():  # with nothing to leave out, the whole set was taken as it is
        trained_on.add(dataset.digest)
    if recorded["digest"] not in trained_on:
        raise RunInvalidError(f"{path} is not the dataset of {run_dir.path}: the digests differ")
    return dataset


def _slugs(dataset: Dataset, given: Mapping[str, str]) -> tuple[str, ...]:
    """The dataset's slugs with those given by folder in their place. Raises DatasetInvalidError."""
    folders = {
        name.partition("/")[0]: label for name, label in zip(dataset.files, dataset.labels, strict=True)
    }
    slugs = list(dataset.classes)
    for folder, slug in given.items():
        if folder not in folders:
            known = ", ".join(folders)
            raise DatasetInvalidError(dataset.root, f"has no class folder {folder!r}; there is {known}")
        slugs[folders[folder]] = slug
    if len(set(slugs)) != len(slugs):
        raise DatasetInvalidError(dataset.root, f"two folders have the same class slug: {', '.join(slugs)}")
    return tuple(slugs)


def _next_version(store: ModelStore, name: str) -> str:
    numbers = [int(version) for version in store.versions(name) if version.isdecimal()]
    return str(max(numbers, default=0) + 1)


def _lineage(run_dir: RunDir) -> str:
    """One sentence for a run that did not start from nothing."""
    for entry in run_dir.history():
        origin = entry.get("initialized_from")
        if origin:
            return (
                f"Started from {origin['checkpoint']} (digest {origin['digest'][:16]}), whose"
                f" {origin['images_seen']} images and {origin['hours']} h are included."
            )
        parent = entry.get("grown_from")
        if parent:
            return (
                f"Grown from a {parent['resolution']} px run after {parent['images_seen']} images and"
                f" {parent['hours']} h, which images seen and hours include."
            )
    return ""


def _entry(path: str, content: bytes) -> FileEntry:
    return FileEntry(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def _dataset_info(
    publication: Publication, data: DataConfig, trained_on: Mapping[str, Any], dataset: Dataset
) -> DatasetInfo:
    cleaning = {
        "keep": "none",
        "inpaint": "scale bars painted over by style",
        "mask": "scale bars painted over by style; large boxes hidden from the discriminator",
    }[dataset.label_mode]
    if data.deduplicate:
        cleaning += "; duplicates removed at thumbnail correlation 0.6"
    block = data.hold_out_block
    counts = dict(zip(dataset.classes, trained_on["images_per_class"].values(), strict=True))
    return DatasetInfo(
        name=publication.dataset_name,
        digest=trained_on["digest"],
        images_per_class=counts,
        cleaning=cleaning,
        held_out="none" if block < 0 else f"series block {block + 1} of 5, by class and scale-bar style",
        license=publication.dataset_license,
    )
