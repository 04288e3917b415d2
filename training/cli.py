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
    from training.presets import preset as named_preset
    from training.runner import RunRequest, run

    config = named_preset(preset)
    changes = list(settings or [])
    if resolution is not None:
        changes.append(f"run.resolution={resolution}")
    if total_kimg is not None:
        changes.append(f"run.total_kimg={total_kimg}")
    config = config.with_settings(changes)
    if dry_run:
        sys.stdout.write(json.dumps(config.to_dict(), indent=2) + "\n")
        return
    budget = parse_duration(time_budget) if time_budget else float("inf")
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


def main() -> None:
    """Run a training command; a TrainingError becomes one line and exit code 2."""
    try:
        app()
    except TrainingError as error:
        sys.stderr.write(f"masan: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
