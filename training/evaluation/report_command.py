"""`masan report`: a checkpoint's quality report as a page to look at."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table
from rich.text import Text

from model_store.errors import ModelStoreError
from model_store.quality.feature_cache import DEFAULT_CACHE_FOLDER, FeatureCache
from model_store.report import QualityReport, ReportInvalidError, read_report
from model_store.report_page import render_private_report, render_report
from model_store.report_verdicts import verdicts
from model_store.sampling import make_reproducible
from model_store.store import Checkpoint, ModelStore
from model_store.weights import load_generator
from training.consoles import open_console
from training.data import Dataset, load_dataset
from training.errors import DatasetInvalidError, TrainingError
from training.evaluation.drawing import chosen_device
from training.evaluation.reference import Progress
from training.evaluation.report_images import IMAGES_PER_CLASS, Painter, contact_sheets, patient_images
from training.stages import stage_bars
from training.stores import store_with

_LEVEL_STYLES = {"pass": "green", "look": "yellow", "fail": "red"}


def report(
    checkpoint: Annotated[str, typer.Argument(help="name, name@version or name@alias.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the page.")] = Path("report.html"),
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            envvar="MASAN_MODEL_STORE_URL",
            help="Model store; default: the one that ships, then data/store.",
        ),
    ] = None,
    report_file: Annotated[
        Path | None,
        typer.Option("--report", help="A report by `masan evaluate`; default: the checkpoint's newest."),
    ] = None,
    with_real: Annotated[
        Path | None,
        typer.Option(
            "--with-real",
            help="Real images, a folder per class: adds the nearest of them, and the sources of copies."
            " The page then holds patient images and is for this machine only.",
        ),
    ] = None,
    per_class: Annotated[
        int, typer.Option("--per-class", min=1, max=64, help="Generated images shown of each class.")
    ] = IMAGES_PER_CLASS,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", help="Where features of real images are kept.")
    ] = DEFAULT_CACHE_FOLDER,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show a checkpoint's quality report as one HTML page, with images drawn for it.

    It judges nothing anew: that is `masan evaluate`. The page fetches nothing and can be sent to a reviewer,
    unless it was made with --with-real.
    """
    console = open_console()
    real = None if with_real is None else RealImagesOption(with_real, FeatureCache(cache_dir), cache_dir)
    with stage_bars() as stages:
        try:
            runs_on = chosen_device(device)
            opened = _open(store_with(checkpoint, store), checkpoint, report_file)
            page = _render(opened, real, per_class, runs_on, stages)
        except (ModelStoreError, TrainingError, ValueError) as error:
            raise typer.BadParameter(str(error)) from error
    _write(out, page, is_private=real is not None)
    console.print(_verdict_table(opened.report))
    if real is not None:
        console.print("The page holds patient images: do not share it, delete it when you have looked.")
    console.print(f"page: {out}")
    if open_page and not webbrowser.open(out.resolve().as_uri()):
        raise typer.BadParameter(f"--open: there is no browser here; copy {out} to where one is")


@dataclass(frozen=True)
class RealImagesOption:
    """What --with-real gives."""

    data: Path
    cache: FeatureCache
    cache_dir: Path


@dataclass(frozen=True)
class OpenedReport:
    """A report, and the checkpoint it is of."""

    store: ModelStore
    checkpoint: Checkpoint
    report: QualityReport


def _verdict_table(report: QualityReport) -> Table:
    table = Table.grid(padding=(0, 2))
    for verdict in verdicts(report):
        table.add_row(Text(verdict.level, style=_LEVEL_STYLES[verdict.level]), Text(verdict.text))
    return table


def _open(store: ModelStore, reference: str, report_file: Path | None) -> OpenedReport:
    """Raises ModelStoreError, ValueError for a file that is no report, or no report at all."""
    checkpoint = store.resolve(reference)
    found = read_report(store, checkpoint) if report_file is None else _read_file(report_file, checkpoint)
    if found is None:
        raise ValueError(
            f"{checkpoint.reference} has no quality report; make one with `masan evaluate"
            f" {checkpoint.reference} --data DIR -o report.json` and give it with --report"
        )
    return OpenedReport(store, checkpoint, found)


def _read_file(path: Path, checkpoint: Checkpoint) -> QualityReport:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"report {path}: {error.strerror}") from error
    try:
        found = QualityReport.model_validate_json(content)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"report {path} is none that `masan evaluate` wrote: {first}") from error
    if found.digest != checkpoint.digest:
        reason = f"{path} is of another checkpoint, digest {found.digest[:16]}"
        raise ReportInvalidError(checkpoint.reference, reason)
    return found


def _render(
    opened: OpenedReport,
    real: RealImagesOption | None,
    per_class: int,
    device: torch.device,
    stages: Progress,
) -> str:
    make_reproducible()
    manifest = opened.checkpoint.manifest
    dataset = None if real is None else _dataset(real, opened, stages)
    generator = load_generator(opened.store, opened.checkpoint, device)
    painter = Painter.of(opened.report, generator, manifest.classes, stages)
    sheets = contact_sheets(painter, per_class)
    if dataset is None or real is None:
        return render_report(opened.report, sheets, checkpoint=manifest.reference)
    patients = patient_images(painter, opened.report.checks, dataset, cache=real.cache, per_class=per_class)
    return render_private_report(opened.report, sheets, patients, checkpoint=manifest.reference)


def _dataset(real: RealImagesOption, opened: OpenedReport, stages: Progress) -> Dataset:
    """All images, cleaned as for evaluation. Raises DatasetInvalidError for other classes."""
    manifest = opened.checkpoint.manifest
    dataset = load_dataset(
        real.data,
        resolution=manifest.resolution,
        cache_dir=real.cache_dir.expanduser(),
        progress=lambda done, total: stages("read images", done, total),
    )
    if set(dataset.classes) != set(manifest.classes):
        raise DatasetInvalidError(
            real.data,
            f"has classes {', '.join(dataset.classes)}; the checkpoint has {', '.join(manifest.classes)}",
        )
    return dataset


def _write(out: Path, page: str, *, is_private: bool) -> None:
    """A private page is readable by its owner only."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if is_private:
        out.unlink(missing_ok=True)
        out.touch(mode=0o600)
    out.write_text(page)
