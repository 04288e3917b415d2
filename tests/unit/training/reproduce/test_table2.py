"""A table of generators, whole: train, judge, write; stopped and gone on with; nothing twice."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from training import hardware
from training.errors import ConfigInvalidError, StoppedError
from training.reproduce import gan_table
from training.reproduce.engine import Done, run_units
from training.reproduce.experiment import Facts
from training.reproduce.findings import PRIMARY_JUDGE
from training.reproduce.gan_table import LEARNED_COVERAGE, GanTable
from training.reproduce.generators import TrainGenerator
from training.reproduce.judging import Judge, References, spread_subset
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images
from training.reproduce.render import write_report
from training.reproduce.scale import PAPER, Scale
from training.reproduce.table1 import Table1
from training.reproduce.table2 import Table2
from training.reproduce.workspace import Workspace, both_judges
from training.run_dir import RunDir

MADE = {
    "command": "masan reproduce table2",
    "at": "2026-01-01T00:00:00+00:00",
    "commit": "unknown",
    "device": "cpu",
    "hours": 0.1,
    "dropped": ["seeds 3 -> 1"],
    "dataset": {"digest": "0" * 64, "images_per_class": {"benign": 20, "pro": 20}},
}


def two_rows(facts: Facts) -> Table2:
    return Table2(facts=facts, only=("none", "san"))


def trainings(table: GanTable, scale: Scale) -> list[TrainGenerator]:
    return [judge.train for row in table.rows() for judge in table.judges(row, scale)]


def test_two_rows_are_trained_judged_and_written(
    workspace: Workspace, rates: Rates, facts: Facts, tiny_scale: Scale
) -> None:
    table = two_rows(facts)

    done = run_units(table.units(tiny_scale), workspace, rates)
    report = table.report(tiny_scale, workspace)
    markdown, figures, plot = write_report(report, "table2", workspace.out, MADE)

    assert done == Done(ran=5, kept=0)  # two trainings, two judgements, one reference
    rows = json.loads(figures.read_text())["figures"]["rows"]
    assert [row["name"] for row in rows] == ["none", "san"]
    for row in rows:
        (run,) = row["runs"]
        assert run["images_seen"] == 64
        assert RunDir.open(workspace.out / run["run"]).load_state()["images_seen"] == 64
        assert len(run["digest"]) == 64
        classes = run["judged"]["extractors"]["efficientnet-lite2"]["classes"]
        assert list(classes) == ["benign", "pro"]
        assert classes["pro"]["n_fake"] == 6
        assert classes["pro"]["floor"] > 0
    assert rows[0]["runs"][0]["digest"] != rows[1]["runs"][0]["digest"]
    text = markdown.read_text()
    assert "371.34" in text
    assert "50.03" in text
    assert "compare the order of rows with it, never a number" in text
    assert "Scaled down against the paper: seeds 3 -> 1." in text
    assert plot.read_text().count("<circle") == 4  # two rows, two judges


@pytest.mark.parametrize(("coverage", "cautions"), [(0.003, 1), (LEARNED_COVERAGE, 0), (None, 0)])
def test_rows_that_have_hardly_learned_are_told(coverage: float | None, cautions: int) -> None:
    judged = {PRIMARY_JUDGE: {"mean": {"coverage": coverage}}}
    found: dict[str, list[dict[str, Any]]] = {
        "none": [{"extractors": {PRIMARY_JUDGE: {"mean": {"coverage": 0.001}}}}],
        "san": [{"extractors": judged}],
    }
    if coverage is None:  # as after a training that diverged
        found = {"none": [{"extractors": None}]}

    told = gan_table._cautions(found)

    assert len(told) == cautions
    assert not told or "the best covers 0.3 % of the real ones" in told[0]


def test_second_run_trains_nothing(
    workspace: Workspace, rates: Rates, facts: Facts, tiny_scale: Scale
) -> None:
    table = Table2(facts=facts, only=("none",))
    run_units(table.units(tiny_scale), workspace, rates)
    states = {path: path.stat().st_mtime_ns for path in workspace.out.rglob("state.pt")}

    assert run_units(table.units(tiny_scale), workspace, rates) == Done(ran=0, kept=3)
    longer = table.units(replace(tiny_scale, kimg=0.072))
    assert run_units(longer, workspace, rates) == Done(ran=2, kept=1)

    assert {path: path.stat().st_mtime_ns for path in states} == states


def test_stopped_training_goes_on_where_it_was_and_ends_like_one_that_was_not(
    workspace: Workspace,
    rates: Rates,
    facts: Facts,
    tiny_scale: Scale,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each run times its precision and layout anew: on a busy machine two may choose differently.
    monkeypatch.setattr(hardware, "fastest", lambda choices: choices[0])
    table, scale = Table2(facts=facts, only=("san",)), replace(tiny_scale, kimg=0.512)
    (training,) = trainings(table, scale)
    whole = replace(workspace, out=workspace.out / "whole")
    run_units([training], whole, rates)

    with ended_when_it_trains(workspace.out), pytest.raises(StoppedError, match="0 of 3 units are finished"):
        run_units(table.units(scale), workspace, rates)
    assert workspace.result(training) is None
    run_units(table.units(scale), workspace, rates)

    assert workspace.finished(training)["digest"] == whole.finished(training)["digest"]
    history = RunDir.open(workspace.out / workspace.finished(training)["run"]).history()
    assert [entry["how"] for entry in history] == ["started", "resumed"]


@contextmanager
def ended_when_it_trains(out: Path) -> Iterator[None]:
    """SIGTERM to this process as soon as a run in `out` has written numbers."""
    done = Event()

    def watch() -> None:
        while not done.wait(0.01):
            if any((out / "runs").glob("*/stats.jsonl")):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def test_diverged_row_is_told_and_stops_nothing(
    workspace: Workspace, rates: Rates, facts: Facts, tiny_scale: Scale
) -> None:
    table = Table2(facts=facts, only=("none",))
    (good,) = trainings(table, tiny_scale)
    recipe = good.recipe.with_settings(["optimizer.generator_lr=1e30"])
    bad = replace(good, recipe=recipe)

    run_units([bad], workspace, rates)

    found = workspace.finished(bad)
    assert found["diverged"].startswith("training diverged, ")
    assert found["images_seen"] < 64


def test_real_judges_give_a_floor_beside_every_distance(
    workspace: Workspace, rates: Rates, facts: Facts, tiny_scale: Scale
) -> None:
    judged = replace(workspace, extractors=both_judges)
    (judge,) = Table2(facts=facts, only=("none",)).units(tiny_scale)
    assert isinstance(judge, Judge)

    run_units([judge], judged, rates)

    found = judged.finished(judge)["extractors"]
    assert list(found) == ["efficientnet-lite0", "efficientnet-lite2"]
    for report in found.values():
        assert report["mean"]["frechet_distance"] > report["mean"]["floor"] > 0


def test_rows_of_two_tables_with_equal_recipes_are_one_training(
    workspace: Workspace, facts: Facts, tiny_scale: Scale
) -> None:
    (first,) = trainings(Table1(facts=facts, only=("masan-color",)), tiny_scale)
    (second,) = trainings(Table2(facts=facts, only=("san",)), tiny_scale)
    (other,) = trainings(Table2(facts=facts, only=("san",), images=Images(scope="all")), tiny_scale)

    assert workspace.key(first) != workspace.key(other)
    assert workspace.key(first) == workspace.key(second)


def test_seeds_are_runs_of_their_own(facts: Facts, tiny_scale: Scale) -> None:
    table = Table2(facts=facts)

    units = table.units(replace(tiny_scale, seeds=2, resolution=64))

    seeds = [unit.train.recipe.run.seed for unit in units if isinstance(unit, Judge)]
    assert seeds == [2077] * 5 + [2078] * 5


def test_unknown_row_is_refused(facts: Facts, tiny_scale: Scale) -> None:
    with pytest.raises(
        ConfigInvalidError, match="--only 'best' is not one of none, color, attention, san, ours"
    ):
        Table2(facts=facts, only=("best",)).units(tiny_scale)


def test_real_images_are_spread_over_the_series(
    workspace: Workspace, facts: Facts, tiny_scale: Scale
) -> None:
    (judge,) = Table2(facts=facts, only=("none",)).units(tiny_scale)
    dataset = workspace.dataset(judge.data)

    few = spread_subset(dataset, 5)

    assert few.images_per_class() == {"benign": 5, "pro": 5}
    assert spread_subset(dataset, 100) is dataset
    assert isinstance(judge.needs()[1], References)


def test_paper_is_comparable_only_where_everything_is_as_published(facts: Facts, tiny_scale: Scale) -> None:
    published = Images(bars="kept", deduplicate=False, scope="all")
    full = PAPER

    assert Table2(facts=facts, images=published, inception=True).comparable(full)
    assert not Table2(facts=facts, images=published, inception=True).comparable(tiny_scale)
    assert not Table2(facts=facts, images=published).comparable(full)
    assert not Table2(facts=facts, inception=True).comparable(full)


def test_facts_are_told_without_reading_an_image(tmp_path: Path) -> None:
    for name, count in (("A", 3), ("B", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.jpg").write_bytes(b"no image")

    facts = Facts.of(tmp_path)

    assert (facts.classes, facts.images, facts.at_most(2)) == (("a", "b"), 4, 3)
