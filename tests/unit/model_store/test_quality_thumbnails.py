"""Copies are found through recompression, blur, shifts, flips and turns; different images are not."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from model_store.quality.thumbnails import (
    DUPLICATE_CORRELATION,
    ThumbnailIndex,
    find_duplicates,
    unique_indices,
)
from tests.smears import draw_smear

ImageArray = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def smears() -> list[ImageArray]:
    return [draw_smear(np.random.default_rng(seed), "Early") for seed in range(12)]


def recompressed(image: ImageArray) -> ImageArray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer).convert("RGB"))


def blurred(image: ImageArray) -> ImageArray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3)))


def darkened(image: ImageArray) -> ImageArray:
    return (image * 0.85).astype(np.uint8)


def turned_and_shifted(image: ImageArray) -> ImageArray:
    """As a generator trained with flips and translations at 256 px might repeat it."""
    large = np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC))
    return np.roll(np.rot90(large)[:, ::-1], (6, -9), axis=(0, 1))


@pytest.mark.parametrize("altered", [recompressed, blurred, darkened, turned_and_shifted])
def test_an_altered_copy_is_traced_to_its_original(smears: list[ImageArray], altered: object) -> None:
    assert callable(altered)
    match = ThumbnailIndex.from_images(smears).search([altered(smears[4])])

    assert match.index.tolist() == [4]
    assert match.correlation[0] > DUPLICATE_CORRELATION


def test_new_images_are_not_taken_for_copies(smears: list[ImageArray]) -> None:
    new = [draw_smear(np.random.default_rng(100 + seed), "Early") for seed in range(6)]

    match = ThumbnailIndex.from_images(smears).search(new)

    assert match.correlation.max() < DUPLICATE_CORRELATION


def test_copies_are_grouped_within_their_class_only(smears: list[ImageArray]) -> None:
    images = [*smears, recompressed(smears[2]), blurred(smears[2]), smears[5]]
    labels = [0] * 12 + [0, 0, 1]

    assert find_duplicates(images, labels) == [(2, 12, 13)]
    assert unique_indices(images, labels).tolist() == [*range(12), 14]


def test_groups_that_meet_late_become_one(smears: list[ImageArray]) -> None:
    """Two chains whose common link comes last: all of it is one group, in ascending order."""
    first, last = smears[0].astype(float), smears[1].astype(float)
    blends = [0.0, 1.0, 0.35, 0.65]
    images = [np.rint(first * (1 - w) + last * w).astype(np.uint8) for w in blends] + smears[6:]

    assert find_duplicates(images, [0] * len(images)) == [(0, 1, 2, 3)]


def test_no_images_have_no_duplicates() -> None:
    assert find_duplicates([], []) == []
    assert unique_indices([], []).tolist() == []


def test_lengths_must_agree(smears: list[ImageArray]) -> None:
    with pytest.raises(ValueError, match="12 images but 3 class indices"):
        find_duplicates(smears, [0, 1, 2])


def test_an_index_needs_images() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        ThumbnailIndex.from_images([])
