"""`masan train`, `masan publish` and `masan data`: arguments in, one call, clear errors out."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.errors import ConfigInvalidError, TrainingError
from training.json_output import AsJson, print_json
from training.stores import LOCAL_STORE

app = typer.Typer(no_args_is_help=True, add_completion=False)

ClassSlugs = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="FOLDER=SLUG", help="Slug of a class folder, repeatable."),
]


def parse_classes(texts: list[str] | None) -> dict[str, str]:
    """Folder -> slug from `Early=early_pre_b`. Raises ConfigInvalidError."""
    pairs = {}
    for text in texts or []:
        folder, separator, slug = text.rpartition("=")
        if not (folder and separator and slug):
            raise ConfigInvalidError(f"--class {text!r}: write FOLDER=SLUG, such as Early=early_pre_b")
        pairs[folder] = slug
    return pairs


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `25m` or `1.5h`. Raises ConfigInvalidError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise ConfigInvalidError(f"--time-budget {text!r} is not a duration such as 90s, 25m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@app.command()
def train(
    data: Annotated[
        Path | None, typer.Option(help="Folder with one folder of images per class, or a packed file.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Recipe to start from; default: cpu.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to create; default: runs/<recipe>-<time>.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to continue.")] = None,
    grow: Annotated[Path | None, typer.Option(help="Run at half the resolution to start from.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Published checkpoint to start from: name, name@version or name@alias.")
    ] = None,
    discriminators: Annotated[
        Path | None,
        typer.Option(help="With --init: a run whose discriminators go on, instead of fresh ones."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="MASAN_MODEL_STORE_URL",
            help="Where --init looks; default: the one that ships, then data/store.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
    resolution: Annotated[int | None, typer.Option(help="Side of the images, pixels.")] = None,
    total_kimg: Annotated[float | None, typer.Option(help="Thousands of images to show.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop and save after this long: 90s, 25m.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")] = None,
    classes: ClassSlugs = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="part.field=value, repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print configuration and cost, train nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a checkpoint."""
    from training.origin import load_origin
    from training.plan import Wish, plan

    budget = parse_duration(time_budget) if time_budget else float("inf")
    wish = Wish(
        preset=preset,
        resume=resume,
        grow=grow,
        init=load_origin(init, store) if init else None,
        discriminators=discriminators,
        resolution=resolution,
        total_kimg=total_kimg,
        classes=parse_classes(classes),
        settings=tuple(settings or ()),
    )
    planned = plan(wish)
    if dry_run:
        if as_json:
            print_json(planned.estimate(device))
        else:
            sys.stdout.write(f"{planned.describe(device)}\n")
        return
    run_dir = planned.run(data=data, out=out, device=device, time_budget_s=budget, threads=threads)
    if run_dir is None:
        return
    if as_json:
        print_json(run_dir.summary())
    else:
        sys.stdout.write(f"saved {run_dir.path}; curves and samples are in {run_dir.path / 'report.html'}\n")


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    name: Annotated[str, typer.Option(help="Name of the checkpoint, such as b-all.")],
    version: Annotated[
        str | None, typer.Option(help="Version, never overwritten; default: the next number.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The images trained on; default: where the run found them.")
    ] = None,
    store: Annotated[
        str, typer.Option(envvar="MASAN_MODEL_STORE_URL", help="Model store to publish into.")
    ] = LOCAL_STORE,
    classes: ClassSlugs = None,
    last: Annotated[
        bool, typer.Option("--last", help="The last state instead of the best snapshot.")
    ] = False,
    n: Annotated[int, typer.Option("-n", "--n", help="Images per class for the report.")] = 500,
    dataset_name: Annotated[str, typer.Option(help="What the dataset is called.")] = "folder",
    dataset_license: Annotated[str, typer.Option(help="Terms of the dataset.")] = "unknown",
    notes: Annotated[str, typer.Option(help="What else a reader should know.")] = "",
    allow_copies: Annotated[
        bool,
        typer.Option(
            "--allow-copies", help="Publish although generated images copy training images; is recorded."
        ),
    ] = False,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference/--no-reference",
            help="Ship a reference set of the real images' features (no pixels), to judge without the data.",
        ),
    ] = True,
    discriminators: Annotated[
        bool, typer.Option("--discriminators", help="Keep the discriminators too, for --init to go on with.")
    ] = False,
    as_json: AsJson = False,
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
        classes=parse_classes(classes),
        state="state.pt" if last else "best.pt",
        dataset_name=dataset_name,
        dataset_license=dataset_license,
        notes=notes,
        n_fake=n,
        allow_copies=allow_copies,
        reference_set=reference,
        discriminators=discriminators,
    )
    try:
        with stage_bars() as tell:
            run_dir = RunDir.open(run)
            publish_this = publish_diffusion_run if run_dir.is_diffusion() else publish_run
            checkpoint = publish_this(run_dir, ModelStore(store), publication, tell)
    except (ModelStoreError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        print_json({"checkpoint": checkpoint.reference, "digest": checkpoint.digest})
        return
    sys.stdout.write(f"published {checkpoint.reference}, digest {checkpoint.digest}\n")
    where = "" if store == LOCAL_STORE else f" --store {store}"
    sys.stdout.write(f"  masan report {checkpoint.reference}{where}\n")
    sys.stdout.write(f"  masan models promote {checkpoint.reference}{where}\n")


data_app = typer.Typer(no_args_is_help=True, help="Check a dataset, or pack it into one file.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def check_data(
    root: Annotated[Path, typer.Argument(help="Folder with one folder of images per class, or packed file.")],
    classes: ClassSlugs = None,
    as_json: AsJson = False,
) -> None:
    """Say what training would read: classes, counts, sizes, duplicates, scale bars, series, skipped files."""
    from training.dataset_check import check_dataset, require_trainable
    from training.stages import stage_bars

    with stage_bars() as tell:
        check = check_dataset(root, parse_classes(classes), lambda done, total: tell("read", done, total))
    if as_json:
        print_json(check.document())
    else:
        for line in check.lines():
            sys.stdout.write(f"{line}\n")
    require_trainable(check)


@data_app.command("pack")
def pack_data(
    root: Annotated[Path, typer.Argument(help="Folder with one folder of images per class.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write; --data accepts it.")],
    as_json: AsJson = False,
) -> None:
    """Write one file that carries a dataset to another machine, its images byte for byte."""
    from training.sources import pack
    from training.stages import stage_bars

    with stage_bars() as tell:
        count = pack(root, output, lambda done, total: tell("pack", done, total))
    if as_json:
        print_json({"path": str(output), "images": count, "bytes": output.stat().st_size})
        return
    sys.stdout.write(f"packed {count} images into {output}, {output.stat().st_size / 1e6:.1f} MB\n")


def main() -> None:
    """Run a training command; a TrainingError becomes one line and its exit code: 2 for bad input."""
    try:
        app()
    except TrainingError as error:
        sys.stderr.write(f"masan: {error}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
