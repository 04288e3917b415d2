"""A dataset gives what a checkpoint is judged against, and says which of its images were held out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from model_store.quality.extractors import FeatureExtractor
from tests.smears import draw_smear
from training.evaluation.reference import DatasetReference, Progress, RealReference


@dataclass(frozen=True)
class Smears:
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    classes: tuple[str, ...] = ("early", "pre")
    digest: str = "cd" * 32


@dataclass(frozen=True)
class NamedSmears(Smears):
    files: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def smears() -> Smears:
    drawn = [draw_smear(np.random.default_rng(number), "Early") for number in range(6)]
    return Smears(np.stack(drawn), np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 4, 4, 0, 4]))


def test_a_dataset_is_a_reference(smears: Smears) -> None:
    reference: RealReference = DatasetReference(smears)

    assert (reference.classes, reference.digest) == (("early", "pre"), "cd" * 32)
    assert len(reference.pixels("pre")) == 3
    assert reference.pixels("pre").luma == pytest.approx(DatasetReference(smears).pixels("pre").luma)


def test_held_out_images_are_searched_for_and_not_among_the_others(smears: Smears) -> None:
    reference = DatasetReference(smears)

    found = reference.training_images().search(smears.images[[4]])

    assert found.correlation[0] == pytest.approx(1, abs=1e-3)
    assert reference.source_name(int(found.index[0])) == "image 4"  # third of those not held out
    assert [len(reference.unseen_similarity(slug)) for slug in ("early", "pre")] == [1, 2]
    assert reference.unseen_similarity("early")[0] < 0.6


def test_files_are_called_by_name_where_there_are_names(smears: Smears) -> None:
    named = NamedSmears(
        smears.images, smears.labels, smears.blocks, files=tuple(f"Early/{i}.jpg" for i in range(6))
    )

    assert DatasetReference(named).source_name(2) == "Early/4.jpg"


def test_duplicates_are_looked_for_unless_it_is_known(smears: Smears) -> None:
    doubled = Smears(smears.images[[0, 1, 2, 3, 4, 3]], smears.labels, smears.blocks)

    assert DatasetReference(smears).deduplicated is True
    assert DatasetReference(doubled).deduplicated is False
    assert DatasetReference(doubled, deduplicated=True).deduplicated is True


def test_features_are_told_apart_by_class(smears: Smears) -> None:
    stages: list[tuple[str, int, int]] = []
    tell: Progress = lambda *stage: stages.append(stage)  # noqa: E731
    extractor = FeatureExtractor(0)

    reference = DatasetReference(smears).features(extractor, tell)

    assert np.array_equal(reference.of_class("pre"), reference.features[3:])
    assert reference.blocks_of_class("pre").tolist() == [4, 0, 4]
    assert stages[-1] == ("real images, efficientnet-lite0", 6, 6)
