"""`masan train`, `masan publish` and `masan data`: arguments in, one call, clear errors out."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.errors import ConfigInvalidError, TrainingError

app = typer.Typer(no_args_is_help=True, add_completion=False)


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `25m` or `1.5h`. Raises ConfigInvalidError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise ConfigInvalidError(f"--time-budget {text!r} is not a duration such as 90s, 25m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="Folder with one folder of images per class.")],
    preset: Annotated[str, typer.Option(help="Recipe to start from.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Run folder to create.")] = Path("runs/run"),
    resume: Annotated[Path | None, typer.Option(help="Run folder to continue.")] = None,
    grow: Annotated[Path | None, typer.Option(help="Run at half the resolution to start from.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:0 ...")] = "cpu",
    resolution: Annotated[int | None, typer.Option(help="Side of the images, pixels.")] = None,
    total_kimg: Annotated[float | None, typer.Option(help="Thousands of images to show.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop and save after this long, such as 25m.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="part.field=value, repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Train a checkpoint."""
    from training.diffusion.config import DIFFUSION_PRESETS, DiffusionConfig
    from training.diffusion.cost import describe
    from training.diffusion.train import DiffusionRequest, run_diffusion
    from training.presets import preset as named_preset
    from training.run_dir import RunDir
    from training.runner import RunRequest, run

    if resume is not None and RunDir.open(resume).is_diffusion():
        preset = "ldm"  # the run's own configuration takes its place
    config = DIFFUSION_PRESETS[preset]() if preset in DIFFUSION_PRESETS else named_preset(preset)
    changes = list(settings or [])
    if resolution is not None:
        changes.append(f"run.resolution={resolution}")
    if total_kimg is not None:
        changes.append(f"run.total_kimg={total_kimg}")
    config = config.with_settings(changes)
    budget = parse_duration(time_budget) if time_budget else float("inf")
    if isinstance(config, DiffusionConfig):
        if grow is not None:
            raise ConfigInvalidError(f"--grow {grow}: preset {preset} does not grow; leave it out")
        diffusion = DiffusionRequest(
            config=config,
            data=data,
            out=out,
            resume=resume,
            device=device,
            time_budget_s=budget,
            threads=threads,
        )
        sys.stdout.write(f"{describe(config)}\n" if dry_run else f"saved {run_diffusion(diffusion).path}\n")
        return
    if dry_run:
        sys.stdout.write(json.dumps(config.to_dict(), indent=2) + "\n")
        return
    request = RunRequest(
        config=config,
        data=data,
        out=out,
        resume=resume,
        grow=grow,
        device=device,
        time_budget_s=budget,
        threads=threads,
    )
    run_dir = run(request)
    sys.stdout.write(f"saved {run_dir.path}\n")


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    name: Annotated[str, typer.Option(help="Name of the checkpoint, such as b-all.")],
    version: Annotated[str, typer.Option(help="Version; never overwritten.")],
    data: Annotated[Path, typer.Option(help="The images the run was trained on.")],
    store: Annotated[str, typer.Option(envvar="MASAN_MODEL_STORE_URL", help="Model store to publish into.")],
    last: Annotated[bool, typer.Option("--last", help="The last state instead of the best snapshot.")] = False,
    n: Annotated[int, typer.Option("-n", "--n", help="Images per class for the report.")] = 500,
    dataset_name: Annotated[str, typer.Option(help="What the dataset is called.")] = "folder",
    dataset_license: Annotated[str, typer.Option(help="Terms of the dataset.")] = "unknown",
    notes: Annotated[str, typer.Option(help="What else a reader should know.")] = "",
) -> None:
    """Publish a run's generator, with its quality report, into a model store."""
    from model_store.errors import ModelStoreError
    from model_store.store import ModelStore
    from training.diffusion.export import publish_diffusion_run
    from training.export import Publication, publish_run
    from training.run_dir import RunDir
    from training.stages import stage_bars

    publication = Publication(
        name=name,
        version=version,
        data=data,
        state="state.pt" if last else "best.pt",
        dataset_name=dataset_name,
        dataset_license=dataset_license,
        notes=notes,
        n_fake=n,
    )
    try:
        with stage_bars() as tell:
            run_dir = RunDir.open(run)
            publish_this = publish_diffusion_run if run_dir.is_diffusion() else publish_run
            checkpoint = publish_this(run_dir, ModelStore(store), publication, tell)
    except (ModelStoreError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    sys.stdout.write(f"published {checkpoint.reference}, digest {checkpoint.digest}\n")


data_app = typer.Typer(no_args_is_help=True, help="Check a dataset.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def check_data(
    root: Annotated[Path, typer.Argument(help="Folder with one folder of images per class.")],
    resolution: Annotated[int, typer.Option(help="Side to resize to, pixels.")] = 256,
) -> None:
    """Say what training would read: classes, counts, duplicates, scale bars, unreadable files."""
    from collections import Counter

    from training.data import load_dataset

    whole = load_dataset(root, resolution=resolution, deduplicate=False, label_mode="keep")
    unique = load_dataset(root, resolution=resolution)
    write = sys.stdout.write
    write(f"{root}: {len(whole)} images, {len(unique)} without duplicates, digest {unique.digest[:16]}\n")
    for slug, count in unique.images_per_class().items():
        styles = Counter(s for s, k in zip(unique.styles, unique.labels, strict=True) if unique.classes[k] == slug)
        bars = ", ".join(f"{style} {n}" for style, n in styles.most_common())
        write(f"  {slug}: {whole.images_per_class()[slug]} images, {count} kept; scale bars: {bars}\n")
    for file, why in whole.skipped.items():
        write(f"  skipped {file}: {why}\n")


def main() -> None:
    """Run a training command; a TrainingError becomes one line and exit code 2."""
    try:
        app()
    except TrainingError as error:
        sys.stderr.write(f"masan: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
