"""Generated features are worth something to a classifier, unless their labels are swapped."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from tests.named_extractor import NamedExtractor
from training.evaluation.reference import Reference
from training.evaluation.utility import few_shot_gain, label_agreement, utility_figures

CENTRES = {"a": 1.0, "b": -1.0}


def samples(seed: int, centre: float, count: int) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=(count, 24))
    noise[:, :3] += centre
    return noise.astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Two classes of 100 in five blocks."""
    return Reference(
        extractor=NamedExtractor("made-up", "0" * 64, 24),
        classes=("a", "b"),
        features=np.concatenate([samples(0, 1.0, 100), samples(1, -1.0, 100)]),
        labels=np.repeat([0, 1], 100),
        blocks=np.tile(np.arange(5), 40),
        digest="0" * 64,
    )


RIGHT = {slug: samples(7, centre, 80) for slug, centre in CENTRES.items()}
SWAPPED = {"a": RIGHT["b"], "b": RIGHT["a"]}


def test_right_labels_agree_and_swapped_ones_do_not(reference: Reference) -> None:
    right, swapped = label_agreement(reference, RIGHT), label_agreement(reference, SWAPPED)

    for slug in CENTRES:
        assert right[slug][0] > 0.85 > 0.15 > swapped[slug][0]
        held_out = right[slug][1]
        assert held_out == swapped[slug][1]
        assert held_out is not None and held_out > 0.8


def test_training_on_generated_features_is_tested_on_the_unseen_block(reference: Reference) -> None:
    utility, wrong = utility_figures(reference, RIGHT), utility_figures(reference, SWAPPED)

    assert utility is not None and wrong is not None
    assert (utility.n_test, utility.n_real, utility.n_synthetic) == (40, 160, 160)
    assert utility.synthetic_accuracy > 0.85 > 0.15 > wrong.synthetic_accuracy
    assert [few.n_per_class for few in utility.few_shot] == [10, 20]


def test_a_few_real_images_gain_by_good_ones_and_lose_by_swapped_ones(reference: Reference) -> None:
    gain, loss = (few_shot_gain(reference, generated, 3) for generated in (RIGHT, SWAPPED))

    assert gain.seeds == 5
    assert gain.gain == pytest.approx(gain.augmented_accuracy - gain.real_accuracy)
    assert gain.gain > 0.05
    assert loss.gain < -0.3
    assert gain.real_accuracy == loss.real_accuracy
    assert gain.real_accuracy_sd > 0
    assert few_shot_gain(reference, RIGHT, 3) == gain


def test_counts_that_no_class_can_give_are_left_out(reference: Reference) -> None:
    few = replace(reference, labels=np.r_[np.zeros(180, int), np.ones(20, int)])

    utility = utility_figures(few, RIGHT)

    assert utility is not None
    assert [shot.n_per_class for shot in utility.few_shot] == [10]


def test_without_an_unseen_block_there_is_no_test(reference: Reference) -> None:
    seen = replace(reference, blocks=np.zeros(200, int))
    unseen = replace(reference, blocks=np.full(200, 4))

    assert utility_figures(seen, RIGHT) is None
    assert label_agreement(seen, RIGHT)["a"][1] is None
    assert utility_figures(unseen, RIGHT) is None
    assert label_agreement(unseen, RIGHT) == {}
