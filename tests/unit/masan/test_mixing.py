"""Orders, parts and ratios of an epoch."""

import itertools
from pathlib import Path

import pytest

from masan.errors import DatasetFolderError
from masan.mixing import Reader, mixed, real_images, shuffled, synthetic_count


@pytest.mark.parametrize(("share", "period"), [(0.5, 2), (0.25, 4), (0.75, 4), (0.1, 10)])
def test_every_stretch_has_the_share(share: float, period: int) -> None:
    order = list(itertools.islice(mixed(itertools.repeat("r"), itertools.repeat("s"), share), 40 * period))

    for start in range(0, len(order), period):
        assert order[start : start + period].count("s") == round(share * period)


def test_what_is_left_of_one_comes_last() -> None:
    assert list(mixed(iter("rr"), iter("ssss"), 0.5)) == ["s", "r", "s", "r", "s", "s"]


@pytest.mark.parametrize(("count", "ranks", "workers"), [(10, 3, 1), (64, 4, 3), (5, 1, 8), (7, 7, 2)])
def test_readers_share_without_overlap(count: int, ranks: int, workers: int) -> None:
    parts = {
        rank: [
            list(Reader(rank, ranks, worker, workers).part_of(iter(range(1000)), count))
            for worker in range(workers)
        ]
        for rank in range(ranks)
    }

    of_rank = [sorted(itertools.chain.from_iterable(part)) for part in parts.values()]
    assert {len(part) for part in of_rank} == {count // ranks}
    everything = list(itertools.chain.from_iterable(of_rank))
    assert len(set(everything)) == len(everything) == count // ranks * ranks
    assert max(everything) < count


@pytest.mark.parametrize(("real", "share", "synthetic"), [(100, 0.5, 100), (90, 0.25, 30), (10, 0.9, 90)])
def test_the_share_decides_the_number(real: int, share: float, synthetic: int) -> None:
    assert synthetic_count(real, share) == synthetic


def test_an_order_is_the_same_everywhere() -> None:
    # Written down, so that another process, machine or release cannot silently give another one.
    assert shuffled(list(range(8)), 0, 1, 2) == shuffled(list(range(8)), 0, 1, 2)
    assert shuffled(list(range(8)), 0, 1, 2) != shuffled(list(range(8)), 0, 2, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Early", "benign"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").touch()
    return tmp_path


def test_real_images_are_labelled_by_their_folder(folder: Path) -> None:
    found = real_images(folder, ("benign", "early_pre_b"), {"Early": "early_pre_b"})

    assert found == [(folder / "benign/0.png", 0), (folder / "Early/0.png", 1)]


def test_a_folder_that_no_job_makes_images_of_is_called_by_its_own_name(folder: Path) -> None:
    with pytest.raises(DatasetFolderError, match=r"folder Early: none of the job's classes \(benign\)"):
        real_images(folder, ("benign",), {"Early": "early_pre_b"})


def test_two_folders_of_one_class_are_refused(folder: Path) -> None:
    with pytest.raises(DatasetFolderError, match="folders Early and benign are both benign"):
        real_images(folder, ("benign",), {"Early": "benign"})
