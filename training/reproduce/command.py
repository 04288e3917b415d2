"""`masan reproduce`: plan within a budget, run what is missing, write the table."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer

from model_store.errors import ModelStoreError
from model_store.quality.extractors import ImageExtractor
from training.consoles import open_console
from training.errors import ConfigInvalidError
from training.evaluation.networks import NetworkOptions, find_networks
from training.json_output import AsJson, print_json
from training.plan import choose_device
from training.process import prepare_process
from training.reproduce.budget import Fit, dropped
from training.reproduce.choices import BarsShown, Options, ScaleName, ScopeName, What
from training.reproduce.engine import run_units
from training.reproduce.experiment import Experiment, Facts
from training.reproduce.figure3 import (
    Figure3,
    blank_note,
    draw_figure,
    figure_file,
    real_column,
    shown_column,
    shown_generator,
    shown_report,
)
from training.reproduce.planning import describe, outline_of, plan_within
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images
from training.reproduce.render import write_report
from training.reproduce.results import write_results
from training.reproduce.scale import SCALES
from training.reproduce.unit import DataSpec, in_order
from training.reproduce.workspace import Workspace, both_judges
from training.run_dir import device_name, source_commit

CALIBRATION_FILE: Final = "calibration.json"


def reproduce(
    what: Annotated[
        What, typer.Argument(help="Which table or figure; results: the page of all that is finished.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder with one folder of images per class, or a packed file.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Scale down to what fits by estimate: 90s, 30m, 8h. Default: no limit.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each row; default: 3, and 5 for fewshot.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for runs, results and tables.")] = Path("runs/reproduce"),
    scale: Annotated[ScaleName, typer.Option(help="Counts and widths to start from.")] = ScaleName.LAPTOP,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 ...")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A row, repeatable; default: all.")] = None,
    bars: Annotated[BarsShown, typer.Option(help="Scale bars in the images; `both` for table3.")] = (
        BarsShown.CLEANED
    ),
    keep_duplicates: Annotated[bool, typer.Option(help="Leave near-duplicates in, as the paper.")] = False,
    gan_train_scope: Annotated[
        ScopeName | None,
        typer.Option(
            help="What generators see: not the test `fold`, `blocks` 1 to 4, or `all`."
            " Default: fold for table3, else blocks."
        ),
    ] = None,
    classifiers: Annotated[
        list[str] | None,
        typer.Option("--classifier", help="Of table3 and fewshot, repeatable; default: all three, and cnn."),
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Real images a class, repeatable; default: 10, 20 for table3's probe,"
            " 10, 20, 50, 100 for fewshot.",
        ),
    ] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(help="File of FID's Inception: table1 and table2 give FID too.")
    ] = None,
    show: Annotated[
        list[str] | None, typer.Option(help="figure3: LABEL=RUN_FOLDER or LABEL=NAME@VERSION, repeatable.")
    ] = None,
    generators: Annotated[
        list[str] | None,
        typer.Option(
            "--generator",
            help="table3, fewshot: NAME=RUN_FOLDER or NAME=CHECKPOINT, in place of training; repeatable.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(envvar="MASAN_MODEL_STORE_URL", help="Where --show and --generator find checkpoints."),
    ] = None,
    equal_time: Annotated[bool, typer.Option(help="Train the diffusion model for as long as a GAN.")] = False,
    docs: Annotated[Path, typer.Option(help="results: folder of the page.")] = Path("docs"),
    with_real: Annotated[
        bool, typer.Option("--with-real", help="figure3: real images too. The picture must not be shared.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Knob of the scale, name=value, repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the plan, run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remake a table of the paper, or its figure of samples, within a budget."""
    if what is What.RESULTS:
        _say_files([str(path) for path in write_results(out, docs)], as_json)
        return
    console = open_console(err=True, highlight=False)
    prepare_process(threads)
    device = choose_device(device)
    options = Options(
        what=what,
        only=tuple(only or ()),
        bars=bars,
        keep_duplicates=keep_duplicates,
        scope=gan_train_scope,
        shots=tuple(sorted(set(shots or ()))),
        inception=inception_weights is not None,
        generators=tuple(generators or ()),
        store=store,
        seeds=seeds,
        classifiers=tuple(classifiers or ()),
        settings=tuple(settings or ()),
        equal_time=equal_time,
    )
    if what is What.FIGURE3 and show:
        _say_files(_show(show, store, data, out, device, options.variants()[0], with_real), as_json)
        return
    facts = Facts.of(_required(data))
    wanted = options.experiment(facts)
    # Kept for a dry run too, so that what was shown is what will run.
    rates = Rates(device, len(facts.classes), out / CALIBRATION_FILE)
    start, adjust = options.start(SCALES[scale]), options.adjustment(rates, facts)
    planned = plan_within(wanted, start, budget, rates, adjust)
    outline = outline_of(wanted, planned, rates)
    if dry_run:
        _say({"plan": outline}, describe(outline), as_json)
        return
    (sys.stderr if as_json else sys.stdout).write(f"{describe(outline)}\n")
    sys.stdout.flush()
    judges = _judges(inception_weights, device)
    workspace = Workspace(
        root=_required(data), out=out, device=device, threads=threads, extractors=lambda _: judges
    )
    done = run_units(
        wanted.units(planned.scale), workspace, rates, lambda text: console.print(text, soft_wrap=True)
    )
    report = wanted.report(planned.scale, workspace)
    columns = wanted.columns(planned.scale, workspace) if isinstance(wanted, Figure3) else []
    report = replace(report, notes=(*report.notes, *blank_note(columns)))
    paths = write_report(report, what.value, out, _made(wanted, planned, workspace, facts))
    if isinstance(wanted, Figure3):
        if with_real:
            columns = [real_column(_required(data), wanted.images, wanted.n), *columns]
        paths.append(_save(draw_figure(columns, wanted.side), out, with_real))
    written = [str(path) for path in paths]
    _say(
        {"plan": outline, "units_run": done.ran, "units_kept": done.kept, "files": written},
        f"{done.ran} units run, {done.kept} kept; wrote {', '.join(written)}",
        as_json,
    )


def _say(document: dict[str, Any], text: str, as_json: bool) -> None:
    """The document for programs, or the text for people."""
    if as_json:
        print_json(document)
    else:
        sys.stdout.write(f"{text}\n")


def _say_files(written: list[str], as_json: bool) -> None:
    _say({"files": written}, f"wrote {', '.join(written)}", as_json)


def _judges(inception_weights: Path | None, device: str) -> Sequence[ImageExtractor]:
    """Both EfficientNets and, with its weights, Inception fed in both ways. Raises ConfigInvalidError.

    Loaded at once: a file that cannot be used is told before anything is trained.
    """
    try:
        judges = both_judges(torch.device(device))
        if inception_weights is None:
            return judges
        networks = find_networks(NetworkOptions(inception_weights=inception_weights), device=device)
    except ModelStoreError as error:
        raise ConfigInvalidError(str(error)) from error
    return [*judges, *networks.inception]


def _show(
    show: list[str],
    store: str | None,
    data: Path | None,
    out: Path,
    device: str,
    images: Images,
    with_real: bool,
) -> list[str]:
    """Figure 3 of generators that exist; files written."""
    n, side = Figure3.n, Figure3.side
    try:
        shown = [shown_generator(text, store, torch.device(device)) for text in show]
    except ModelStoreError as error:
        raise ConfigInvalidError(f"--show: {error}") from error
    columns = [shown_column(label, opened, n) for label, opened in shown]
    report = shown_report(shown, columns)
    if with_real:
        columns = [real_column(_required(data), images, n), *columns]
    picture = _save(draw_figure(columns, side), out, with_real)
    made = {"command": _command(data), **_origin(device)}
    paths = write_report(report, What.FIGURE3.value, out, made)
    return [str(path) for path in (picture, *paths)]


def _save(picture: Any, out: Path, with_real: bool) -> Path:
    path = figure_file(out, with_real=with_real)
    out.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def _made(wanted: Experiment, planned: Fit, workspace: Workspace, facts: Facts) -> dict[str, Any]:
    """How a report came about."""
    ordered = in_order(wanted.units(planned.scale))
    stored = [workspace.result(unit) for unit in ordered]
    spec: DataSpec = ordered[0].data
    dataset = workspace.dataset(spec)
    return {
        "command": _command(workspace.root),
        **_origin(workspace.device),
        "hours": sum(one["seconds"] for one in stored if one) / 3600,
        "estimated_hours": planned.seconds / 3600,
        "scale": {name: getattr(planned.scale, name) for name in wanted.turned()},
        "dropped": dropped(planned.scale, wanted.turned(), wanted.full),
        "units": {unit.title(): workspace.key(unit) for unit in ordered},
        "dataset": {
            "digest": dataset.digest,
            "files": facts.images,
            "images_per_class": dataset.images_per_class(),
            "bars": spec.bars,
            "deduplicated": spec.deduplicate,
        },
    }


def _origin(device: str) -> dict[str, str]:
    """When, by which code and where."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "device": device_name(torch.device(device)),
    }


def _command(root: Path | None) -> str:
    """What was typed, without the places of files on this machine."""
    return " ".join(["masan", *("DIR" if word == str(root) else _placeless(word) for word in sys.argv[1:])])


def _placeless(word: str) -> str:
    """A word of a command with the last part of an absolute path in its place."""
    name, separator, value = word.rpartition("=")
    return f"{name}{separator}{Path(value).name}" if Path(value).is_absolute() else word


def _required(data: Path | None) -> Path:
    if data is None:
        raise ConfigInvalidError("--data is missing: a folder with one folder of images per class")
    return data
