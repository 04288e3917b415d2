"""Run what is not there yet, one unit after another; whatever is finished stays when it is stopped."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from training.errors import StoppedError
from training.process import StopSignals
from training.reproduce.budget import duration
from training.reproduce.generators import TrainGenerator
from training.reproduce.rates import Rates
from training.reproduce.unit import Unit, in_order
from training.reproduce.workspace import Workspace
from training.run_dir import device_name
from training.stages import stage_bars


@dataclass(frozen=True)
class Done:
    """How many units were run and how many were there already."""

    ran: int
    kept: int


def run_units(
    units: Sequence[Unit], workspace: Workspace, rates: Rates, say: Callable[[str], None] = lambda _: None
) -> Done:
    """Run every unit without a result, after what it needs.

    SIGTERM or Ctrl-C ends the unit at work, a training where it can go on; then StoppedError is raised.
    """
    ordered = in_order(units)
    _read_images(ordered, workspace)
    missing = [unit for unit in ordered if workspace.result(unit) is None]
    kept = len(ordered) - len(missing)
    if kept:
        say(f"{kept} of {len(ordered)} units are finished already")
    for number, unit in enumerate(missing):
        if workspace.result(unit) is not None:  # one before it was the same under another label
            continue
        say(f"[{number + 1}/{len(missing)}] {unit.title()} (about {duration(unit.seconds(rates))})")
        try:
            _run(unit, workspace)
        except StoppedError as error:
            raise StoppedError(
                f"{error}; {kept + number} of {len(ordered)} units are finished, the same command goes on"
            ) from None
    return Done(ran=len(missing), kept=kept)


def _read_images(units: Sequence[Unit], workspace: Workspace) -> None:
    """Read and clean the images in every way that is needed; the first time this takes a minute or two."""
    before = workspace.tell
    with stage_bars() as workspace.tell:
        for spec in dict.fromkeys(unit.data for unit in units):
            workspace.digest(spec)
    workspace.tell = before


def _run(unit: Unit, workspace: Workspace) -> None:
    """Run a unit and keep its result."""
    started = time.perf_counter()
    # A training shows its own bars and obeys signals itself.
    bars = nullcontext(workspace.tell) if isinstance(unit, TrainGenerator) else stage_bars()
    before = workspace.tell, workspace.stop
    try:
        with StopSignals() as signals, bars as tell:
            workspace.tell, workspace.stop = tell, lambda: signals.received or before[1]()
            result = unit.run(workspace)
            if signals.received:
                # What was asked to stop has come to its end all the same; the next one shall not begin.
                _keep(unit, workspace, result, started)
                raise StoppedError(f"stopped after {unit.title()}")
    finally:
        workspace.tell, workspace.stop = before
    _keep(unit, workspace, result, started)


def _keep(unit: Unit, workspace: Workspace, result: dict[str, object], started: float) -> None:
    workspace.keep(
        unit,
        result,
        seconds=time.perf_counter() - started,
        device=device_name(workspace.torch_device),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
