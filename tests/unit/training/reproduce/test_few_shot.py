"""The few-shot curve, whole, with a generator that exists and nothing trained but classifiers."""

import json
from dataclasses import replace

import pytest

from model_store.store import ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights
from tests.checkpoints import build_tiny, describe, tiny_config
from tests.unit.training.reproduce.test_table2 import MADE
from training.errors import ConfigInvalidError
from training.reproduce.engine import run_units
from training.reproduce.experiment import Facts
from training.reproduce.few_shot import FewShotCurve, few_shot_scale
from training.reproduce.generators import TrainGenerator
from training.reproduce.given import Given
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images
from training.reproduce.render import write_report
from training.reproduce.scale import LAPTOP, PAPER, Scale
from training.reproduce.unit import in_order
from training.reproduce.workspace import Workspace


@pytest.fixture
def scale(tiny_scale: Scale) -> Scale:
    return replace(tiny_scale, classifiers=("cnn",), seeds=2)


@pytest.fixture
def given(model_store: ModelStore) -> Given:
    """Of random weights, which nobody could have trained on the test block."""
    config, classes = tiny_config(), ("benign", "pro")
    weights = encode_weights(build_tiny(config))
    model_store.publish(describe("smears", "1", weights, config, classes=classes), {WEIGHTS_FILE: weights})
    return Given.of("random=smears@1", model_store.url, classes)


def test_curve_of_a_given_generator_is_run_and_written(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale, given: Given
) -> None:
    curve = FewShotCurve(facts=facts, images=Images(scope="all"), shots=(2, 4), given=(given,))

    done = run_units(curve.units(scale), workspace, rates)
    report = curve.report(scale, workspace)
    markdown, figures, plot = write_report(report, "fewshot", workspace.out, MADE)

    assert done.ran == 2 + 4 * 2 * 2 + 1  # probes, networks of four rows, the generator's facts
    assert not (workspace.out / "runs").exists()
    found = json.loads(figures.read_text())["figures"]["classifiers"]
    assert list(found) == ["linear probe", "cnn"]
    assert list(found["cnn"]) == ["real", "classical", "random", "random-half"]
    assert found["cnn"]["random-half"]["label"] == "real + random: smears@1, half of each batch"
    assert list(found["linear probe"]) == ["real", "random"]
    for shots in ("2", "4"):
        alone, more = (found["cnn"][arm]["shots"][shots] for arm in ("real", "random"))
        assert [one["seed"] for one in alone] == [one["seed"] for one in more] == [0, 1]
        gains = [100 * (b["accuracy"] - a["accuracy"]) for a, b in zip(alone, more, strict=True)]
        assert found["cnn"]["random"]["gain_points"][shots] == pytest.approx(gains)
    assert len(report.findings) == 2 * (1 + 3)  # counts x (the probe's row, the network's three)
    text = markdown.read_text()
    assert "real + random: smears@1" in text
    assert "Generators have seen the test images" in text
    assert plot.read_text().count("<circle") == 2 * (2 + 4)
    assert run_units(curve.units(scale), workspace, rates).ran == 0


def test_without_a_given_one_the_papers_four_are_trained_without_the_test_block(
    facts: Facts, scale: Scale
) -> None:
    units = in_order(FewShotCurve(facts=facts, shots=(2,)).units(replace(scale, resolution=64)))

    trainings = [unit for unit in units if isinstance(unit, TrainGenerator)]
    assert [unit.label for unit in trainings] == ["CellGAN", "LDM", "MASAN", "masan-projected (ours)"]
    assert {unit.recipe.data.hold_out_block for unit in trainings} == {4}


def test_rows_that_are_asked_for_are_run(facts: Facts, scale: Scale, given: Given) -> None:
    curve = FewShotCurve(facts=facts, only=("real", "cellgan"), shots=(2,), given=(given,))

    assert [arm.name for arm in curve.arms()] == ["real", "cellgan", "cellgan-half"]
    with pytest.raises(ConfigInvalidError, match="--only 'magic' is not one of real, classical, cellgan"):
        FewShotCurve(facts=facts, only=("magic",), shots=(2,)).units(scale)


def test_more_real_images_than_there_are_is_refused_at_once(facts: Facts) -> None:
    with pytest.raises(
        ConfigInvalidError, match="--shots 17: a class has 20 images, a fifth of them to test"
    ):
        FewShotCurve(facts=facts, shots=(10, 17))


def test_plan_starts_from_five_draws_and_2000_synthetic_images() -> None:
    for start in (LAPTOP, PAPER):
        scale = few_shot_scale(start)

        assert (scale.seeds, scale.synthetic_per_class, scale.classifiers) == (5, 2_000, ("cnn",))
        assert scale.resolution == start.resolution


def test_row_whose_training_left_nothing_is_told(
    workspace: Workspace, rates: Rates, facts: Facts, scale: Scale
) -> None:
    curve = FewShotCurve(facts=facts, only=("real", "cellgan"), shots=(2,))
    units = in_order(curve.units(scale))
    (training,) = (unit for unit in units if isinstance(unit, TrainGenerator))
    lost = {"run": "runs/x", "digest": None, "images_seen": 0, "hours": 0.0, "device": "cpu"}
    workspace.keep(
        training,
        {**lost, "images_of_training": 1, "commit": "0", "diverged": "training diverged"},
        seconds=1,
        device="cpu",
        when="now",
    )

    run_units(units, workspace, rates)
    report = curve.report(scale, workspace)

    assert report.findings == ()
    assert any("diverged" in row for section in report.sections for row in section.rows)
