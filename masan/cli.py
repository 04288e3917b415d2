"""The `masan` command. What a command needs is imported when it runs, so that `masan --help` is quick."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from masan import doctor_command, jobs_command
from masan.connection import (
    DEFAULT_DATA_DIR,
    ApiKey,
    AsJson,
    DataDir,
    Url,
    find_server,
    make_client,
    make_console,
    print_json,
    said,
    status_printer,
)
from masan.errors import ExtraMissingError, MasanError
from masan.keys_command import app as keys_app
from masan.models_command import app as models_app
from masan.verify_command import verify

if TYPE_CHECKING:
    from rich.console import Console

    from masan.client import Client

app = typer.Typer(
    name="masan",
    help="Labelled, traceable synthetic blood-smear images: train class-conditional GANs and serve them.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Worker processes; they share the machine's cores.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="name, name@version or name@alias; default: the server's own.")
]
DefaultModel = Annotated[
    str, typer.Option("--model", envvar="MASAN_DEFAULT_MODEL", help="What a request without model gets.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=2**64 - 1, help="The same seed gives the same images; default: random."
    ),
]
WalkToSeed = Annotated[
    int | None,
    typer.Option(
        "--walk-to-seed",
        min=0,
        max=2**64 - 1,
        help="The images are steps of a walk from the first of --seed to the first of this one; ungated.",
    ),
]
_OURS = frozenset({"model_store", "training", "worker"})
"""Packages whose errors are made for people to read."""
_STARTED = time.monotonic()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"masan {installed_version('masan')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def up(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need an API key.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: 8000 if it is free, else any.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    workers: Workers = 1,
    model: DefaultModel = "b-all@production",
) -> None:
    """Run the whole stack here (queue, service, workers) until Ctrl-C."""
    from masan.local import EmbeddedStack, StackConfig

    console = make_console()
    config = StackConfig(
        data_dir=data_dir,
        host=host,
        port=port,
        prefer_default_port=True,
        workers=workers,
        model=model,
        reports=True,
    )
    with EmbeddedStack(config, status_printer(console)) as stack:
        console.print(f"Ready at {stack.url} (also for a browser)", style="bold")
        console.print(f"  curl -X POST '{stack.url}/generate?class=pro_b&n=500'", soft_wrap=True)
        console.print(f"  masan generate pro_b -n 500 -o out --data-dir {data_dir}", soft_wrap=True)
        console.print("Ctrl-C stops it.")
        try:
            while True:
                stack.check()
                time.sleep(0.5)
        except SystemExit:
            console.print("Stopping")
            raise SystemExit(0) from None


@app.command()
def generate(
    class_: Annotated[str, typer.Argument(metavar="CLASS", help="Class of the images, such as pro_b.")],
    n: Annotated[int, typer.Option("-n", "--count", help="How many images.")] = 16,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the images and their manifest.")
    ] = Path("out"),
    seed: Seed = None,
    walk_to_seed: WalkToSeed = None,
    truncation: Annotated[
        float | None, typer.Option(help="0 < t <= 1; below 1: nearer to the average image, less varied.")
    ] = None,
    model: Model = None,
    gate: Annotated[str | None, typer.Option(help="off, default or strict: how images are judged.")] = None,
    image_format: Annotated[str | None, typer.Option(help="png, webp or jpeg.")] = None,
    quality: Annotated[int | None, typer.Option(help="1 to 100, of a lossy image format.")] = None,
    priority: Annotated[str | None, typer.Option(help="interactive (few images) or batch.")] = None,
    deadline: Annotated[
        int | None, typer.Option(help="Seconds after which the unfinished job expires.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TEXT", help="Kept with the job; repeatable.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the images of an earlier job in the folder.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    workers: Workers = 1,
) -> None:
    """Make images: on a running server, or on a stack started for the occasion."""
    from masan.generate import GenerateRequest, describe_saved, generate_to_folder, parse_metadata

    console = make_console(err=as_json)
    request = GenerateRequest(
        class_slug=class_,
        n=n,
        output=output,
        seed=seed,
        walk_to_seed=walk_to_seed,
        truncation=truncation,
        model=model,
        gate=gate,
        image_format=image_format,
        quality=quality,
        priority=priority,
        deadline_s=deadline,
        metadata=parse_metadata(metadata),
        replace=force,
    )
    _refuse_occupied(request.output, replace=force)
    with _server(url, api_key, console, data_dir=data_dir, workers=workers, model=model) as (client, check):
        saved, timing = generate_to_folder(client, request, console, check)
    if as_json:
        print_json(describe_saved(saved, timing))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the images.")] = Path("out"),
    n: Annotated[int, typer.Option("-n", "--count", help="How many images.")] = 500,
    class_: Annotated[str, typer.Option("--class", help="Class of the images.")] = "pro_b",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    workers: Workers = 1,
) -> None:
    """The main job from nothing: start a stack, make 500 pro_b images, save and judge them, stop."""
    from masan.generate import GenerateRequest, generate_to_folder, print_quality

    console = make_console()
    _refuse_occupied(output, replace=True)
    with _server(None, None, console, data_dir=data_dir, workers=workers) as (client, check):
        request = GenerateRequest(class_slug=class_, n=n, output=output, replace=True)
        console.print(f"POST /generate?class={class_}&n={n}", style="bold")
        saved, timing = generate_to_folder(client, request, console, check)
        console.print(timing.describe(_STARTED, "the start of this command"))
        print_quality(client, class_, saved.rows[0]["checkpoint"], console)


@app.command()
def serve() -> None:
    """Run the HTTP service alone, set by MASAN_... variables."""
    _become("service", extra="service", needs="uvicorn")


@app.command()
def work(
    queue: Annotated[
        str,
        typer.Option(
            "--queue", metavar="QUEUE", help="What to take: chunks (of images); or reports, webhooks."
        ),
    ] = "chunks",
) -> None:
    """Run one worker alone, set by MASAN_... variables."""
    wanted = frozenset(name.strip() for name in queue.split(","))
    if wanted == {"chunks"}:
        _become("worker", extra="worker", needs="torch")
    if not wanted <= {"reports", "webhooks"}:
        reason = "the process that makes images does nothing else" if "chunks" in wanted else "no such queue"
        raise typer.BadParameter(
            f"--queue {queue!r}: {reason}; allowed: chunks, or reports,webhooks or one of them"
        )
    _require("rq", f"masan work --queue {queue}", extra="worker")
    if wanted == {"webhooks"}:
        _become("masan.webhook_worker", extra="worker", needs="pydantic_settings")
    _become(
        "masan.report_worker",
        *(["--webhooks"] if "webhooks" in wanted else []),
        extra="training",
        needs="cv2",
    )


def _register_training_commands() -> None:
    """`masan train|publish|evaluate|reference|report|data` hand all their arguments to `training.cli`."""
    raw = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    for name, text in (
        ("train", "Train a checkpoint on a folder-per-class dataset."),
        ("publish", "Publish a trained generator into a model store."),
        ("evaluate", "Judge a checkpoint against real images, class by class."),
        ("reference", "Keep what judges need of real images, without their pixels."),
        ("report", "Show a checkpoint's quality report as a page to look at."),
        ("reproduce", "Remake a table of the paper, or its figure of samples, within a budget."),
        ("data", "Check and prepare a dataset."),
    ):
        app.command(name, help=text, context_settings=raw, add_help_option=False)(_training_command(name))


def _training_command(name: str) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        try:
            run = typer.main.get_command(_load_training_app(name))
            code = run(args=[name, *context.args], prog_name="masan", standalone_mode=False)
        except ModuleNotFoundError as error:
            raise ExtraMissingError(f"masan {name}", "training", error.name or "") from error
        raise typer.Exit(code if isinstance(code, int) else 0)

    return command


def _load_training_app(name: str) -> typer.Typer:
    """The app that has the command `name`; imports torch."""
    if name == "evaluate":
        from training.evaluation.command import evaluate

        training = typer.Typer(add_completion=False)
        training.command(name)(evaluate)
    elif name == "reference":
        from training.reference_command import app as reference

        training = typer.Typer(add_completion=False)
        training.add_typer(reference, name=name)
    elif name == "report":
        from training.evaluation.report_command import report

        training = typer.Typer(add_completion=False)
        training.command(name)(report)
    elif name == "reproduce":
        from training.reproduce.command import reproduce

        training = typer.Typer(add_completion=False)
        training.command(name)(reproduce)
    else:
        from training.cli import app as training
    # A callback makes a group of it, whose first argument is the command's name, also while it has one only.
    if training.registered_callback is None:
        training.callback()(lambda: None)
    return training


jobs_command.register(app)
app.add_typer(models_app, name="models")
_register_training_commands()
app.add_typer(keys_app, name="keys")
app.command()(verify)
app.command()(doctor_command.doctor)


def main() -> None:
    """Entry point: every error is one line on stderr; exit code 2 for bad input, 1 for a failure."""
    _end_on_signals()
    try:
        code = app(standalone_mode=False)
    except (TyperException, MasanError) as error:
        _fail(said(error), error.exit_code)
    except ValueError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except typer.Abort:
        _fail("stopped", 130)
    except Exception as error:
        if os.environ.get("MASAN_DEBUG"):
            raise
        if type(error).__module__.partition(".")[0] in _OURS:
            _fail(str(error), getattr(error, "exit_code", 1))
        _fail(f"{type(error).__name__}: {error} (MASAN_DEBUG=1 shows where)", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"masan: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _end_on_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP unwind the program, once: what tidies up is not interrupted again."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: object) -> None:
        for each in ends:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in ends:
        signal.signal(each, end)


@contextmanager
def _server(
    url: str | None,
    api_key: str | None,
    console: "Console",
    *,
    data_dir: Path,
    workers: int,
    model: str | None = None,
) -> Iterator[tuple["Client", Callable[[], None]]]:
    """A client of the server asked for, of the data folder's running stack, or of one started for this.

    `model` is what a stack started here loads first; None: its default. Beside the client comes a check to
    call while waiting: it raises StackError once a stack started here cannot go on.
    """
    from masan.local import DEFAULT_MODEL, EmbeddedStack, StackConfig

    if found := find_server(url, data_dir):
        with make_client(found, api_key) as client:
            yield client, lambda: None
        return
    config = StackConfig(data_dir=data_dir, workers=workers, model=model or DEFAULT_MODEL)
    with EmbeddedStack(config, status_printer(console)) as stack, make_client(stack.url, api_key) as client:
        console.print(f"Ready at {stack.url}")
        yield client, stack.check


def _refuse_occupied(output: Path, *, replace: bool) -> None:
    """Tell about an occupied folder before a stack is started for nothing."""
    from masan.archive import check_folder

    check_folder(output, replace=replace)


def _become(module: str, *arguments: str, extra: str, needs: str) -> NoReturn:
    """Replace this process, so that signals reach the module's own handlers."""
    _require(needs, f"masan's {module}", extra=extra)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - our own module


def _require(module: str, what: str, *, extra: str) -> None:
    if find_spec(module) is None:
        raise ExtraMissingError(what, extra, module)


if __name__ == "__main__":
    main()
