"""The classifier table, whole, with the small network; every generator kept from its fold's test images."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.training.reproduce.test_table2 import MADE
from training.errors import ConfigInvalidError
from training.reproduce.classifying import Classify, Proxies
from training.reproduce.engine import Done, run_units
from training.reproduce.experiment import Facts
from training.reproduce.generators import TrainGenerator
from training.reproduce.given import Given
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images, Scope
from training.reproduce.render import write_report
from training.reproduce.scale import Scale
from training.reproduce.table3 import Table3
from training.reproduce.unit import in_order
from training.reproduce.workspace import Workspace
from training.run_dir import RunDir


@pytest.fixture
def scale(tiny_scale: Scale) -> Scale:
    return replace(tiny_scale, classifiers=("cnn",))


def table(facts: Facts, scope: Scope = "fold", *only: str) -> Table3:
    return Table3(facts=facts, only=only, variants=(Images(scope=scope),), shots=(2,))


def trainings(wanted: Table3, scale: Scale) -> list[TrainGenerator]:
    return [unit for unit in in_order(wanted.units(scale)) if isinstance(unit, TrainGenerator)]


def trained_without_block_5(workspace: Workspace, rates: Rates, facts: Facts, scale: Scale) -> Path:
    """A run folder that can be given in place of a training."""
    (training,) = trainings(table(facts, "blocks", "cellgan"), scale)
    run_units([training], workspace, rates)
    return workspace.out / str(workspace.finished(training)["run"])


def test_table_is_run_and_written_whole(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale
) -> None:
    wanted = table(facts, "fold", "real", "real-equal-steps", "cellgan")

    done = run_units(wanted.units(scale), workspace, rates)
    paths = write_report(wanted.report(scale, workspace), "table3", workspace.out, MADE)

    assert done == Done(ran=2 * 2 * 4 + 1, kept=0)  # modes x folds x (three arms, a generator), and a proxy
    figures = json.loads(paths[1].read_text())["figures"]
    assert [(g["folds"], g["network"]) for g in figures["groups"]] == [("blocked", "cnn"), ("random", "cnn")]
    for group in figures["groups"]:
        arms = group["arms"]
        real, equal, added = (arms[name]["results"] for name in ("real", "real-equal-steps", "cellgan"))
        assert [one["fold"] for one in added] == [4, 0]
        for plain, longer, more in zip(real, equal, added, strict=True):
            assert 0 <= more["accuracy"] <= 1
            assert longer["steps"] == more["steps"] >= plain["steps"]
            assert more["n_train"] == plain["n_train"] + 16
            assert plain["n_test"] == sum(map(sum, plain["confusion"]))
        assert len(arms["cellgan"]["gain_percent"]) == 2
    (proxy,) = figures["proxies"]
    assert 0 <= proxy["utility"]["synthetic_accuracy"] <= 1
    assert [few["n_per_class"] for few in proxy["few_shot"]] == [2]
    assert "Every generator was trained without the test images of its fold." in paths[0].read_text()
    assert run_units(wanted.units(scale), workspace, rates).ran == 0


def test_no_generator_has_seen_a_test_image_of_its_fold(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale
) -> None:
    one_fold = replace(scale, folds=1)
    units = [u for u in table(facts, "fold", "cellgan").units(one_fold) if isinstance(u, Classify)]

    for unit in units:
        assert unit.train is not None
        run_units([unit.train], workspace, rates)
        seen = RunDir.open(workspace.out / workspace.finished(unit.train)["run"]).environment()["dataset"]
        dataset = workspace.dataset(unit.data)
        test = frozenset(dataset.files[i] for i in unit.fold.split(dataset)[1])
        if unit.fold.mode == "random":
            assert seen["digest"] == dataset.without(test).digest
        else:
            assert seen["digest"] == dataset.subset(dataset.blocks != unit.fold.index).digest
            assert set(dataset.blocks[unit.fold.split(dataset)[1]]) == {unit.fold.index}
    assert {unit.fold.mode for unit in units} == {"random", "blocked"}


@pytest.mark.parametrize(
    ("scope", "generators", "modes", "blocks"),
    [
        ("fold", 4, {"random", "blocked"}, {4, 0, -1}),
        ("blocks", 1, {"blocked"}, {4}),
        ("all", 1, {"random", "blocked"}, {-1}),
    ],
)
def test_scope_decides_how_many_generators_there_are(
    facts: Facts, scale: Scale, scope: Scope, generators: int, modes: set[str], blocks: set[int]
) -> None:
    wanted = table(facts, scope, "real", "cellgan")

    units = trainings(wanted, scale)

    assert len(units) == generators
    assert {unit.recipe.data.hold_out_block for unit in units} == blocks
    folds = [unit.fold for unit in wanted.units(scale) if isinstance(unit, Classify)]
    assert {fold.mode for fold in folds} == modes
    assert {fold.index for fold in folds} == ({4} if scope == "blocks" else {4, 0})


def test_leak_is_told(workspace: Workspace, rates: Rates, facts: Facts, scale: Scale) -> None:
    wanted = table(facts, "all", "real")
    run_units(wanted.units(scale), workspace, rates)

    notes = wanted.report(scale, workspace).notes

    assert any("Generators have seen the test images" in note for note in notes)


def test_with_and_without_bar_are_runs_of_their_own(workspace: Workspace, facts: Facts, scale: Scale) -> None:
    both = Table3(
        facts=facts, only=("real",), variants=(Images(scope="fold"), Images(scope="fold", bars="kept"))
    )

    units = both.units(scale)

    assert {unit.data.bars for unit in units} == {"cleaned", "kept"}
    assert len({workspace.key(unit) for unit in units}) == len(units)


def test_arms_differ_in_what_they_are_trained_on_alone(facts: Facts, scale: Scale) -> None:
    units = [u for u in table(facts).units(replace(scale, resolution=64)) if isinstance(u, Classify)]

    by_arm = {unit.arm.name: unit for unit in units if unit.fold.mode == "random" and unit.fold.index == 4}

    assert list(by_arm) == ["real", "real-equal-steps", "classical", "cellgan", "ldm", "masan", "ours"]
    assert {unit.fold for unit in by_arm.values()} == {by_arm["real"].fold}
    assert {unit.seed for unit in by_arm.values()} == {4}
    longer = {name: unit.steps(32) for name, unit in by_arm.items()}
    assert longer.pop("real") == 1
    assert set(longer.values()) == {1 * -(-(32 + 2 * 8) // 64)}
    assert {type(u) for u in table(facts).units(replace(scale, resolution=64))} == {Classify, Proxies}


def test_diffusion_baseline_is_an_arm_like_the_others(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale
) -> None:
    small = replace(
        scale, resolution=32, autoencoder_kimg=0.008, denoiser_kimg=0.032, sampling_steps=1, folds=1
    )
    unit = table(facts, "blocks", "ldm").units(small)[0]

    run_units([unit], workspace, rates)

    assert workspace.finished(unit)["n_train"] > workspace.finished(unit)["n_train_real"]


def test_given_generators_are_compared_on_the_block_they_have_not_seen(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale
) -> None:
    folder = trained_without_block_5(workspace, rates, facts, scale)
    wanted = Table3(
        facts=facts,
        only=("real-equal-steps", "ours", "other"),
        variants=(Images(scope="blocks"),),
        shots=(2,),
        given=tuple(Given.of(f"{name}={folder}", None, facts.classes) for name in ("ours", "other")),
    )

    run_units(wanted.units(replace(scale, seeds=2)), workspace, rates)
    report = wanted.report(replace(scale, seeds=2), workspace)

    assert trainings(wanted, scale) == []
    # Both names are one generator: what was run for the one serves the other.
    assert len(list((workspace.out / "units" / "classify").iterdir())) == 2 + 2
    (group,) = report.figures["groups"]
    assert list(group["arms"]) == ["real-equal-steps", "ours", "other"]
    assert group["arms"]["ours"]["results"] == group["arms"]["other"]["results"]
    label = f"real + masan-projected (ours): {folder.name}"
    assert group["arms"]["ours"]["label"] == label
    assert any(row[0] == label for section in report.sections for row in section.rows)
    assert any(note.startswith("A row that names a run or a version is") for note in report.notes)
    assert len(report.findings) == 2


def test_given_generator_is_tested_on_no_fold_it_has_seen(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale
) -> None:
    folder = trained_without_block_5(workspace, rates, facts, scale)
    wanted = Table3(
        facts=facts,
        only=("real-equal-steps", "mine"),
        variants=(Images(scope="fold"),),
        shots=(2,),
        given=(Given.of(f"mine={folder}", None, facts.classes),),
    )
    units = [unit for unit in wanted.units(scale) if isinstance(unit, Classify)]

    run_units(wanted.units(scale), workspace, rates)
    report = wanted.report(scale, workspace)

    assert [(unit.fold.mode, unit.fold.index) for unit in units if unit.train] == [("blocked", 4)]
    arms = {group["folds"]: group["arms"] for group in report.figures["groups"]}
    assert list(arms["random"]) == ["real-equal-steps"]
    known = [gain is not None for gain in arms["blocked"]["mine"]["gain_percent"]]
    assert known == [True, False]
    (row,) = [row for section in report.sections for row in section.rows if row[0].startswith("real + mine")]
    assert row[-2] == "1"
    assert any(note.startswith("Such a row is tested on the fifth block alone") for note in report.notes)


def test_rows_are_held_against_real_images_in_equal_steps_and_the_paper(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale
) -> None:
    wanted = table(facts, "blocks", "real", "real-equal-steps", "classical")
    two = replace(scale, seeds=2)
    run_units(wanted.units(two), workspace, rates)

    report = wanted.report(two, workspace)

    (finding,) = report.findings  # the paper's pairs of generators were not run, `real` is no comparison
    gains = report.figures["groups"][0]["arms"]["classical"]["gain_percent"]
    assert finding.text.startswith("cnn, series-blocked folds, scale bars cleaned: classical augmentation")
    assert f"{sum(gains) / 2:+.1f} points" in finding.text
    assert finding.kind in ("new", "open")


def test_unknown_arm_is_refused(facts: Facts, scale: Scale) -> None:
    with pytest.raises(ConfigInvalidError, match="--only 'magic' is not one of real, "):
        table(facts, "fold", "magic").units(scale)


@pytest.mark.parametrize(("accuracy", "is_told"), [(0.7, True), (0.8, False)])
def test_generators_that_teach_a_probe_little_are_named(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale, accuracy: float, is_told: bool
) -> None:
    """Of two classes: half way from guessing to certainty is 0.75."""
    folder = trained_without_block_5(workspace, rates, facts, scale)
    wanted = Table3(
        facts=facts,
        only=("mine",),
        variants=(Images(scope="blocks"),),
        shots=(2,),
        given=(Given.of(f"mine={folder}", None, facts.classes),),
    )
    run_units(wanted.units(scale), workspace, rates)
    (file,) = (workspace.out / "units" / "proxies").iterdir()
    kept = json.loads(file.read_text())
    kept["result"]["utility"]["synthetic_accuracy"] = accuracy
    file.write_text(json.dumps(kept))

    notes = wanted.report(scale, workspace).notes

    named = [note for note in notes if note.startswith("A probe trained on images of mine")]
    assert len(named) == is_told
    assert all("alone names 70.0 to 70.0 % of the real ones, where guessing names 50.0 %" in n for n in named)
