"""Units are run once, kept by content, and survive being stopped."""

import json
import os
import signal
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from tests.unit.training.reproduce.test_unit import DATA, Number
from training.errors import StoppedError
from training.reproduce.engine import Done, run_units
from training.reproduce.rates import Rates
from training.reproduce.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Interrupted(Number):
    """Ends as if someone had asked to stop while it was at work."""

    kind: ClassVar[str] = "interrupted"

    def run(self, workspace: Workspace) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        if workspace.stop():
            raise StoppedError("half way")
        return {"sum": 0}


ONE = Number(data=DATA, value=1)
TWO = Number(data=DATA, value=2, first=(ONE,))


def test_each_unit_is_run_once_and_kept(workspace: Workspace, rates: Rates) -> None:
    first = run_units([TWO], workspace, rates)
    second = run_units([TWO, ONE], workspace, rates)

    assert (first, second) == (Done(ran=2, kept=0), Done(ran=0, kept=2))
    assert workspace.finished(TWO) == {"sum": 3}
    stored = workspace.result(TWO)
    assert stored is not None
    assert stored["config"] == {"value": 2}
    assert stored["needs"] == [workspace.key(ONE)]


def test_damaged_or_foreign_result_counts_as_none(workspace: Workspace, rates: Rates) -> None:
    run_units([ONE], workspace, rates)
    (file,) = (workspace.out / "units").rglob("*.json")

    file.write_text(file.read_text()[:40])
    assert workspace.result(ONE) is None
    file.write_text(json.dumps({"key": "of another", "result": {}}))
    assert workspace.result(ONE) is None

    assert run_units([ONE], workspace, rates) == Done(ran=1, kept=0)
    assert workspace.finished(ONE) == {"sum": 1}


def test_stop_keeps_what_is_finished_and_says_how_to_go_on(workspace: Workspace, rates: Rates) -> None:
    stopped = Interrupted(data=DATA, value=5, first=(ONE,))

    with pytest.raises(StoppedError, match="half way; 1 of 3 units are finished, the same command goes on"):
        run_units([stopped, TWO], workspace, rates)

    assert workspace.result(ONE) is not None
    assert workspace.result(stopped) is None
    assert workspace.result(TWO) is None
    assert not workspace.stop()
    assert run_units([TWO], workspace, rates) == Done(ran=1, kept=1)


def test_unit_under_two_labels_is_run_once(workspace: Workspace, rates: Rates) -> None:
    class SameNumber(Number):
        def title(self) -> str:
            return "the same"

    said: list[str] = []
    run_units([ONE, SameNumber(data=DATA, value=1)], workspace, rates, said.append)

    assert len(said) == 1
