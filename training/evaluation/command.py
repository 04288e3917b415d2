"""`masan evaluate`: judge a checkpoint against real images and write its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from model_store.builtin import builtin_store
from model_store.errors import ModelStoreError
from model_store.quality.feature_cache import DEFAULT_CACHE_FOLDER, FeatureCache
from model_store.report import ExtractorReport, QualityReport
from model_store.sampling import make_reproducible
from model_store.store import ModelStore
from model_store.weights import load_generator
from training.data import load_dataset
from training.errors import TrainingError
from training.evaluation.reference import Progress
from training.evaluation.report import Drawing, evaluate_checkpoint
from training.stages import stage_bars


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="name, name@version or name@alias.")],
    data: Annotated[Path, typer.Option("--data", help="Real images, a folder per class.")],
    n: Annotated[int, typer.Option("--n", "-n", help="Generated images per class.")] = 500,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the report.")] = Path(
        "report.json"
    ),
    store: Annotated[
        str | None,
        typer.Option(
            "--store", envvar="MASAN_MODEL_STORE_URL", help="Model store; default: the one that ships."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**64 - 1)] = 0,
    truncation: Annotated[float, typer.Option("--truncation", help="Above 0, at most 1.")] = 1.0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", help="Where features of real images are kept.")
    ] = DEFAULT_CACHE_FOLDER,
) -> None:
    """Judge a checkpoint against real images, class by class.

    Draws images as the worker does and compares them with the cleaned, deduplicated real images on two
    feature extractors; looks for copies of training images, scale bars and wrong brightness.
    """
    console = Console()
    with stage_bars() as stages:
        try:
            drawing = Drawing(n_fake=n, seed=seed, truncation=truncation)
            report = _evaluate(
                checkpoint,
                ModelStore(store) if store else builtin_store(),
                data,
                drawing,
                _device(device),
                cache_dir,
                stages,
            )
        except (ModelStoreError, TrainingError, ValueError) as error:
            raise typer.BadParameter(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report.model_dump_json(indent=1) + "\n")
    for extractor in report.extractors:
        console.print(_table(report, extractor))
    if report.utility is not None:
        console.print(
            f"linear classifier on {report.utility.extractor}, {report.utility.n_test} unseen real images:"
            f" {report.utility.synthetic_accuracy:.1%} trained on generated,"
            f" {report.utility.real_accuracy:.1%} trained on real images"
        )
    console.print(f"report: {out}")


def _evaluate(
    reference: str,
    store: ModelStore,
    data: Path,
    drawing: Drawing,
    device: torch.device,
    cache_dir: Path,
    stages: Progress,
) -> QualityReport:
    make_reproducible()
    checkpoint = store.resolve(reference)
    manifest = checkpoint.manifest
    generator = load_generator(store, checkpoint, device)
    dataset = load_dataset(
        data,
        resolution=manifest.resolution,
        cache_dir=cache_dir.expanduser(),
        progress=lambda done, total: stages("read images", done, total),
    )
    return evaluate_checkpoint(
        generator,
        manifest.digest,
        manifest.classes,
        dataset,
        drawing=drawing,
        cache=FeatureCache(cache_dir),
        progress=stages,
    )


def _device(name: str) -> torch.device:
    """Raises ValueError for a device that does not exist or is not here."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}; it must be cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _table(report: QualityReport, extractor: ExtractorReport) -> Table:
    table = Table(
        title=f"{extractor.extractor} ({extractor.extractor_sha256[:8]}, {extractor.preprocessing})"
    )
    columns = (
        "class real generated Frechet floor blocked KID precision recall coverage nearest bars copies luma"
    )
    for name in columns.split():
        table.add_column(name, justify="left" if name in ("class", "nearest") else "right", overflow="fold")
    for slug, figures in extractor.classes.items():
        checks = report.checks[slug]
        table.add_row(
            slug,
            str(figures.n_real),
            str(figures.n_fake),
            f"{figures.frechet_distance:.1f}",
            f"{figures.floor:.1f}",
            _optional(figures.floor_blocked, ".1f"),
            f"{figures.kid:.3f}±{figures.kid_sd:.3f}",
            _optional(figures.precision, ".2f"),
            _optional(figures.recall, ".2f"),
            _optional(figures.coverage, ".2f"),
            min(figures.distance_to, key=figures.distance_to.__getitem__),
            _optional(checks.scale_bar_ratio, ".1%"),
            _optional(checks.memorized_ratio, ".1%"),
            _optional(checks.luma_delta, "+.1f"),
        )
    return table


def _optional(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
