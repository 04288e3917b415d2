"""Copies are found from projections too, as the exact search finds them."""

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from model_store.quality.projected_thumbnails import (
    PROJECTED_DUPLICATE_CORRELATION,
    ProjectedThumbnails,
    projection,
)
from model_store.quality.thumbnails import DUPLICATE_CORRELATION, ThumbnailIndex
from tests.smears import draw_smear
from tests.unit.model_store.test_quality_thumbnails import ALTERATIONS

ImageArray = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def smears() -> list[ImageArray]:
    return [draw_smear(np.random.default_rng(seed), "Early") for seed in range(12)]


@pytest.fixture(scope="module")
def index(smears: list[ImageArray]) -> ThumbnailIndex:
    return ThumbnailIndex.from_images(smears)


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_copy_is_traced_to_its_original(
    smears: list[ImageArray], index: ThumbnailIndex, name: str
) -> None:
    match = ProjectedThumbnails.of(index).search([ALTERATIONS[name](smears[4])])

    assert match.index.tolist() == [4]
    assert match.correlation[0] > PROJECTED_DUPLICATE_CORRELATION


def test_new_images_are_not_taken_for_copies() -> None:
    known, new = (
        [draw_smear(np.random.default_rng(seed), "Pre") for seed in seeds]
        for seeds in (range(12), range(100, 108))
    )
    index = ThumbnailIndex.from_images(known)

    projected, exact = ProjectedThumbnails.of(index).search(new), index.search(new)

    assert projected.correlation.max() < PROJECTED_DUPLICATE_CORRELATION
    assert np.abs(projected.correlation - exact.correlation).max() < 0.15


def test_what_is_just_a_copy_stays_one(smears: list[ImageArray], index: ThumbnailIndex) -> None:
    """Blends of an image with another, up to those the exact search just takes for a copy."""
    other = draw_smear(np.random.default_rng(500), "Early").astype(np.float64)
    shares = np.linspace(0.3, 0.8, 11)
    blends = [np.rint(w * image + (1 - w) * other).astype(np.uint8) for image in smears[:6] for w in shares]

    exact = index.search(blends).correlation
    projected = ProjectedThumbnails.of(index).search(blends).correlation

    just = (exact > DUPLICATE_CORRELATION) & (exact < 0.75)
    assert just.sum() >= 5
    assert projected[just].min() > PROJECTED_DUPLICATE_CORRELATION


def test_projections_are_the_same_everywhere() -> None:
    """A reference set of today must be searchable with tomorrow's release: these bytes never change."""
    signs = np.packbits(projection() > 0)

    assert (
        hashlib.sha256(signs.tobytes()).hexdigest()
        == "9881c062ecb29bf81ad2fb5333902eb67003937c16447dca9b814f65edcfa86a"
    )
    assert np.abs(projection()) == pytest.approx(512**-0.5)
