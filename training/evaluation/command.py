"""`masan evaluate`: judge a checkpoint against real images and write its report."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from model_store.errors import ModelStoreError
from model_store.quality.feature_cache import DEFAULT_CACHE_FOLDER, FeatureCache
from model_store.quality.reference_set import load_reference_set
from model_store.report import QualityReport
from model_store.sampling import make_reproducible
from model_store.store import Checkpoint, ModelStore
from model_store.weights import load_generator
from training.consoles import open_console
from training.data import load_dataset
from training.errors import TrainingError
from training.evaluation.drawing import chosen_device
from training.evaluation.kept_reference import KeptReference
from training.evaluation.networks import FidChoice, NetworkOptions, PublishedNetworks, find_networks
from training.evaluation.reference import DatasetReference, Progress, RealReference
from training.evaluation.report import Drawing, evaluate_against
from training.evaluation.tables import report_tables
from training.json_output import AsJson
from training.stages import stage_bars
from training.stores import store_with

NEEDS_IMAGES = "the reference set keeps no features of this network"


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="name, name@version or name@alias.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Real images, a folder per class; default: the checkpoint's own reference set."
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Generated images per class.")] = 500,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the report.")] = Path(
        "report.json"
    ),
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            envvar="MASAN_MODEL_STORE_URL",
            help="Model store; default: the one that ships, then data/store.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**64 - 1)] = 0,
    truncation: Annotated[float, typer.Option("--truncation", help="Above 0, at most 1.")] = 1.0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="CPU threads; default: every core. Figures do not depend on it."),
    ] = None,
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", help="Where features of real images are kept.")
    ] = DEFAULT_CACHE_FOLDER,
    extractor: Annotated[
        FidChoice,
        typer.Option(
            "--extractor",
            help="auto: a FID if Inception's weights are here; inception: a FID or an error;"
            " effnet-lite0: no FID. EfficientNet's figures are always there.",
        ),
    ] = FidChoice.AUTO,
    inception_weights: Annotated[
        Path | None, typer.Option("--inception-weights", help="File of FID's Inception; asks for a FID.")
    ] = None,
    clip_weights: Annotated[
        Path | None, typer.Option("--clip-weights", help="File of CLIP ViT-L/14 at 336 px; asks for CMMD.")
    ] = None,
    download_weights: Annotated[
        bool, typer.Option("--download-weights", help="Fetch Inception's weights (95 MB) if absent.")
    ] = False,
    fid_n: Annotated[
        int | None,
        typer.Option("--fid-n", help="Generated images per class of the standard FID; default: as --n."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a checkpoint against real images, class by class.

    Draws images as the worker does and compares them with the cleaned, deduplicated real images on two
    feature extractors, and on Inception and CLIP where their weights are here; looks for copies of training
    images, scale bars and wrong colour. Every figure stands beside what real images score.
    """
    console = open_console(err=as_json)
    options = NetworkOptions(
        fid=extractor,
        inception_weights=inception_weights,
        clip_weights=clip_weights,
        download=download_weights,
    )
    with stage_bars() as stages:
        try:
            request = _Request(
                reference=checkpoint,
                store=store_with(checkpoint, store),
                data=data,
                drawing=Drawing(n_fake=n, seed=seed, truncation=truncation, fid_n_fake=fid_n),
                networks=options,
                device=chosen_device(device),
                workers=jobs,
                cache_dir=cache_dir.expanduser(),
            )
            report = _evaluate(request, stages)
        except (ModelStoreError, TrainingError, ValueError) as error:
            raise typer.BadParameter(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    document = report.model_dump_json(indent=1) + "\n"
    out.write_text(document)
    for part in report_tables(report):
        console.print(part)
    console.print(f"report: {out}")
    if as_json:
        sys.stdout.write(document)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What is to be judged, against what, how."""

    reference: str
    store: ModelStore
    data: Path | None
    drawing: Drawing
    networks: NetworkOptions
    device: torch.device
    workers: int | None
    cache_dir: Path


def _evaluate(request: _Request, stages: Progress) -> QualityReport:
    make_reproducible()
    networks = _networks(request)  # before the long work, as what was asked for may not be here
    checkpoint = request.store.resolve(request.reference)
    manifest = checkpoint.manifest
    generator = load_generator(request.store, checkpoint, request.device)
    return evaluate_against(
        _reference(request, checkpoint, stages),
        generator,
        manifest.digest,
        manifest.classes,
        drawing=request.drawing,
        networks=networks,
        workers=request.workers,
        progress=stages,
    )


def _reference(request: _Request, checkpoint: Checkpoint, stages: Progress) -> RealReference:
    """The real images given, else what the checkpoint keeps of its own. Raises ReferenceSetAbsentError."""
    if request.data is None:
        return KeptReference(load_reference_set(request.store, checkpoint))
    dataset = load_dataset(
        request.data,
        resolution=checkpoint.manifest.resolution,
        deduplicate=True,
        cache_dir=request.cache_dir,
        progress=lambda done, total: stages("read images", done, total),
    )
    return DatasetReference(dataset, cache=FeatureCache(request.cache_dir), deduplicated=True)


def _networks(request: _Request) -> PublishedNetworks:
    """Without the real images nothing can be said on networks whose features are not kept."""
    networks = find_networks(request.networks, device=request.device)
    if request.data is not None or not (networks.inception or networks.clip):
        return networks
    if request.networks != NetworkOptions():
        raise ValueError("a FID or CMMD needs the real images; give --data")
    return PublishedNetworks(fid_reason=NEEDS_IMAGES, cmmd_reason=NEEDS_IMAGES)
