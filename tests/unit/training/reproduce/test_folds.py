from dataclasses import replace

import numpy as np
import pytest

from tests.tiny_training import tiny_dataset
from training.data import Dataset
from training.reproduce.folds import GAP, Fold, FoldMode


def dataset(per_class: int = 200) -> Dataset:
    """Two classes, each one stream of numbered files cut into five blocks."""
    plain = tiny_dataset(per_class=per_class)
    numbers = np.tile(np.arange(per_class), 2)
    return replace(
        plain,
        files=tuple(f"{label}/{number}.png" for label, number in zip(plain.labels, numbers, strict=True)),
        blocks=numbers * 5 // per_class,
    )


def folds(mode: FoldMode, per_class: int = 100) -> list[Fold]:
    return [Fold(mode=mode, index=index, per_class=per_class) for index in range(5)]


@pytest.mark.parametrize("mode", ["random", "blocked"])
def test_test_images_are_never_trained_on_and_classes_are_equal(mode: FoldMode) -> None:
    data = dataset()

    for fold in folds(mode):
        train, test = fold.split(data)

        assert not set(train) & set(test)
        assert np.bincount(data.labels[train]).tolist() == [80, 80]
        assert np.bincount(data.labels[test]).tolist() == [20, 20]


def test_random_folds_share_out_the_same_images() -> None:
    data = dataset()

    tested = [set(fold.split(data)[1]) for fold in folds("random")]

    chosen = set().union(*tested)
    assert len(chosen) == 200 == sum(map(len, tested))
    assert all(
        set(fold.split(data)[0]) == chosen - test for fold, test in zip(folds("random"), tested, strict=True)
    )


def test_blocked_folds_test_one_block_away_from_its_cuts() -> None:
    data = dataset()

    for fold in folds("blocked", per_class=500):
        train, test = fold.split(data)

        assert set(data.blocks[test]) == {fold.index}
        assert fold.index not in set(data.blocks[train])
        numbers = test % 200
        start, end = 40 * fold.index, 40 * fold.index + 39
        assert numbers.min() == (start + GAP if fold.index > 0 else start)
        assert numbers.max() == (end - GAP if fold.index < 4 else end)


def test_generators_of_a_random_fold_are_told_its_test_files() -> None:
    data = dataset()
    fold = folds("random")[2]

    hidden = fold.hidden_from_generators(data)

    assert hidden == {data.files[i] for i in fold.split(data)[1]}
    assert set(data.without(hidden).files) == set(data.files) - hidden
    assert folds("blocked")[2].hidden_from_generators(data) == frozenset()


def test_small_class_gives_what_it_has() -> None:
    train, test = Fold(mode="random", index=0, per_class=500).split(dataset(per_class=9))

    assert (len(train), len(test)) == (14, 4)
