"""`masan reproduce`: plan within a budget, run what is missing, write the table."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console

from model_store.errors import ModelStoreError
from model_store.quality.extractors import ImageExtractor
from training.cli import parse_duration
from training.errors import ConfigInvalidError
from training.evaluation.networks import NetworkOptions, find_networks
from training.json_output import AsJson, print_json
from training.plan import choose_device
from training.process import prepare_process
from training.reproduce.budget import Fit, dropped, duration, fit
from training.reproduce.classifiers import CLASSIFIERS
from training.reproduce.engine import run_units
from training.reproduce.experiment import Experiment, Facts
from training.reproduce.figure3 import Figure3, draw_figure, figure_file, real_column, shown_column
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images, Scope
from training.reproduce.render import write_report
from training.reproduce.scale import SCALES, Scale, with_settings
from training.reproduce.table1 import Table1
from training.reproduce.table2 import Table2
from training.reproduce.table3 import Table3
from training.reproduce.unit import Bars, DataSpec, in_order
from training.reproduce.workspace import Workspace, both_judges
from training.run_dir import device_name, source_commit

CALIBRATION_FILE: Final = "calibration.json"


class What(StrEnum):
    """What can be remade."""

    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"
    FIGURE3 = "figure3"


class ScaleName(StrEnum):
    """Where a plan starts from."""

    LAPTOP = "laptop"
    PAPER = "paper"


class BarsShown(StrEnum):
    """Whether scale bars are painted over."""

    CLEANED = "cleaned"
    KEPT = "kept"
    BOTH = "both"


class ScopeName(StrEnum):
    """What generators are trained on."""

    FOLD = "fold"
    BLOCKS = "blocks"
    ALL = "all"


def reproduce(
    what: Annotated[What, typer.Argument(help="Which table or figure.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with one folder of images per class, or a packed file.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Scale down to what fits by estimate: 90s, 30m, 8h. Default: no limit.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each row; default: 3.")] = None,
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
        list[str] | None, typer.Option("--classifier", help="Of table3, repeatable; default: all three.")
    ] = None,
    shots: Annotated[
        list[int] | None, typer.Option(min=1, help="Real images a class for table3's probe; default: 10, 20.")
    ] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(help="File of FID's Inception: table1 and table2 give FID too.")
    ] = None,
    show: Annotated[
        list[str] | None, typer.Option(help="figure3: LABEL=RUN_FOLDER or LABEL=NAME@VERSION, repeatable.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(envvar="MASAN_MODEL_STORE_URL", help="Where --show finds checkpoints.")
    ] = None,
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
    console = Console(stderr=True, highlight=False)
    prepare_process(threads)
    device = choose_device(device)
    if what is What.FIGURE3 and show:
        path = _show(show, store, data, out, device, _images(bars, keep_duplicates, "blocks"), with_real)
        _say({"files": [str(path)]}, f"wrote {path}", as_json)
        return
    facts = Facts.of(_required(data))
    wanted = _experiment(
        what,
        facts,
        tuple(only or ()),
        [_images(each, keep_duplicates, _scope(what, gan_train_scope)) for each in _each(bars)],
        tuple(shots or (10, 20)),
        inception_weights is not None,
    )
    start = _start(SCALES[scale], seeds, classifiers, settings or [])
    # Kept for a dry run too, so that what was shown is what will run.
    rates = Rates(device, len(facts.classes), out / CALIBRATION_FILE)
    planned = _plan(wanted, start, budget, rates)
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
    paths = write_report(report, what.value, out, _made(wanted, planned, workspace, facts))
    if isinstance(wanted, Figure3):
        columns = wanted.columns(planned.scale, workspace)
        if with_real:
            columns = [real_column(_required(data), wanted.images, wanted.n), *columns]
        paths.append(_save(draw_figure(columns, wanted.side), out, with_real))
    written = [str(path) for path in paths]
    _say(
        {"plan": outline, "units_run": done.ran, "units_kept": done.kept, "files": written},
        f"{done.ran} units run, {done.kept} kept; wrote {', '.join(written)}",
        as_json,
    )


def outline_of(wanted: Experiment, planned: Fit, rates: Rates) -> dict[str, Any]:
    """The plan for JSON: what runs, how long by estimate, and what was dropped against the paper."""
    kinds: dict[str, list[float]] = {}
    for unit in in_order(wanted.units(planned.scale)):
        kinds.setdefault(unit.kind, []).append(unit.seconds(rates))
    return {
        "name": wanted.name,
        "device": device_name(rates.device),
        "units": {kind: {"count": len(times), "seconds": sum(times)} for kind, times in kinds.items()},
        "seconds": planned.seconds,
        "seconds_without_budget": planned.full_seconds,
        "dropped": dropped(planned.scale, wanted.knobs),
    }


def describe(outline: dict[str, Any]) -> str:
    """The plan for people."""
    units, seconds, full = outline["units"], outline["seconds"], outline["seconds_without_budget"]
    parts = ", ".join(f"{of['count']} x {kind} {duration(of['seconds'])}" for kind, of in units.items())
    lines = [
        f"{outline['name']}: {sum(of['count'] for of in units.values())} units, about {duration(seconds)} on"
        f" {outline['device']}: {parts}",
        "dropped against the paper: " + ("; ".join(outline["dropped"]) or "nothing"),
    ]
    if seconds < full:
        lines.append(f"without the budget it would take about {duration(full)}")
    return "\n".join(lines)


def _say(document: dict[str, Any], text: str, as_json: bool) -> None:
    """The document for programs, or the text for people."""
    if as_json:
        print_json(document)
    else:
        sys.stdout.write(f"{text}\n")


def _plan(wanted: Experiment, start: Scale, budget: str | None, rates: Rates) -> Fit:
    def cost_s(scale: Scale) -> float:
        return sum(unit.seconds(rates) for unit in in_order(wanted.units(scale)))

    if budget is None:
        seconds = cost_s(start)
        return Fit(scale=start, seconds=seconds, full_seconds=seconds)
    try:
        budget_s = parse_duration(budget)
    except ConfigInvalidError:
        raise ConfigInvalidError(f"--budget {budget!r} is not a duration such as 90s, 25m or 1.5h") from None
    return fit(start, budget_s, cost_s)


def _experiment(
    what: What,
    facts: Facts,
    only: tuple[str, ...],
    variants: list[Images],
    shots: tuple[int, ...],
    inception: bool,
) -> Experiment:
    """Raises ConfigInvalidError for what this table cannot do."""
    if what is What.TABLE3:
        return Table3(facts=facts, only=only, variants=tuple(variants), shots=shots)
    if len(variants) > 1:
        raise ConfigInvalidError(f"--bars 'both' is for table3; {what} takes cleaned or kept")
    if variants[0].scope == "fold":
        raise ConfigInvalidError(f"--gan-train-scope 'fold' is for table3; {what} takes blocks or all")
    if what is What.FIGURE3:
        return Figure3(facts=facts, only=only, images=variants[0])
    table = Table1 if what is What.TABLE1 else Table2
    return table(facts=facts, only=only, images=variants[0], inception=inception)


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


def _start(scale: Scale, seeds: int | None, classifiers: list[str] | None, settings: list[str]) -> Scale:
    """The scale to start from, as the command line changes it."""
    unknown = [name for name in classifiers or () if name not in CLASSIFIERS]
    if unknown:
        raise ConfigInvalidError(f"--classifier {unknown[0]!r} is not one of {', '.join(CLASSIFIERS)}")
    changes: dict[str, Any] = {} if seeds is None else {"seeds": seeds}
    if classifiers:
        changes["classifiers"] = tuple(name for name in CLASSIFIERS if name in classifiers)
    return with_settings(replace(scale, **changes), settings)


def _show(
    show: list[str],
    store: str | None,
    data: Path | None,
    out: Path,
    device: str,
    images: Images,
    with_real: bool,
) -> Path:
    """Figure 3 of generators that exist; where it was written."""
    n, side = Figure3.n, Figure3.side
    try:
        columns = [shown_column(text, store, n, torch.device(device)) for text in show]
    except ModelStoreError as error:
        raise ConfigInvalidError(f"--show: {error}") from error
    if with_real:
        columns = [real_column(_required(data), images, n), *columns]
    return _save(draw_figure(columns, side), out, with_real)


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
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "device": device_name(workspace.torch_device),
        "hours": sum(one["seconds"] for one in stored if one) / 3600,
        "estimated_hours": planned.seconds / 3600,
        "scale": {name: getattr(planned.scale, name) for name in wanted.knobs},
        "dropped": dropped(planned.scale, wanted.knobs),
        "units": {unit.title(): workspace.key(unit) for unit in ordered},
        "dataset": {
            "digest": dataset.digest,
            "files": facts.images,
            "images_per_class": dataset.images_per_class(),
            "bars": spec.bars,
            "deduplicated": spec.deduplicate,
        },
    }


def _command(root: Path) -> str:
    """What was typed, without the place of the images on this machine."""
    return " ".join(["masan", *("DIR" if word == str(root) else word for word in sys.argv[1:])])


def _each(bars: BarsShown) -> list[Bars]:
    return (
        ["cleaned", "kept"] if bars is BarsShown.BOTH else ["kept" if bars is BarsShown.KEPT else "cleaned"]
    )


def _images(bars: Bars | BarsShown, keep_duplicates: bool, scope: Scope) -> Images:
    return Images(bars="kept" if bars == "kept" else "cleaned", deduplicate=not keep_duplicates, scope=scope)


def _scope(what: What, given: ScopeName | None) -> Scope:
    if given is None:
        return "fold" if what is What.TABLE3 else "blocks"
    scopes: dict[ScopeName, Scope] = {
        ScopeName.FOLD: "fold",
        ScopeName.BLOCKS: "blocks",
        ScopeName.ALL: "all",
    }
    return scopes[given]


def _required(data: Path | None) -> Path:
    if data is None:
        raise ConfigInvalidError("--data is missing: a folder with one folder of images per class")
    return data
