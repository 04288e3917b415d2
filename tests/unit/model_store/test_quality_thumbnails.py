"""Copies are found through recompression, blur, shifts, flips and turns; different images are not."""

import io
import os
from collections.abc import Callable
from pathlib import Path

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
from tests.unit.model_store.test_quality_thumbnail_variants import pillow_thumbnail, variants

ImageArray = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def smears() -> list[ImageArray]:
    return [draw_smear(np.random.default_rng(seed), "Early") for seed in range(12)]


def recompressed(quality: int) -> Callable[[ImageArray], ImageArray]:
    def altered(image: ImageArray) -> ImageArray:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return altered


def blurred(image: ImageArray) -> ImageArray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3)))


def darkened(image: ImageArray) -> ImageArray:
    return (image * 0.85).astype(np.uint8)


def shifted(rows: int, columns: int) -> Callable[[ImageArray], ImageArray]:
    return lambda image: np.roll(image, (rows, columns), axis=(0, 1))


def turned_and_shifted(image: ImageArray) -> ImageArray:
    """As a generator trained with flips and translations at 256 px might repeat it."""
    large = np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC))
    return np.roll(np.rot90(large)[:, ::-1], (6, -9), axis=(0, 1))


def mildly_noisy(image: ImageArray) -> ImageArray:
    noise = np.random.default_rng(0).normal(0, 15, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


ALTERATIONS: dict[str, Callable[[ImageArray], ImageArray]] = {
    "JPEG q75": recompressed(75),
    "JPEG q30": recompressed(30),
    "blur": blurred,
    "darkening": darkened,
    "shift on the grid": shifted(8, -4),
    "shift off the grid": shifted(6, -2),
    "flip": np.fliplr,
    "flip, upside down": np.flipud,
    "quarter turn": np.rot90,
    "turn, flip, shift and resize": turned_and_shifted,
    "noise": mildly_noisy,
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_copy_is_traced_to_its_original(smears: list[ImageArray], name: str) -> None:
    match = ThumbnailIndex.from_images(smears).search([ALTERATIONS[name](smears[4])])

    assert match.index.tolist() == [4]
    assert match.correlation[0] > DUPLICATE_CORRELATION


REAL = "MASAN_TEST_DATA"


@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no folder of real images")
def test_altered_copies_of_real_images_are_traced_and_others_are_not() -> None:
    files = sorted(Path(os.environ[REAL]).glob("*/*.jpg"))[::40]
    real = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    keep = unique_indices(real, [0] * len(real))
    real = [real[index] for index in keep]
    planted = list(range(0, len(real) - 20, 12))
    training = ThumbnailIndex.from_images(real[:-20])

    for name, alter in ALTERATIONS.items():
        match = training.search([alter(real[index]) for index in planted])
        assert match.index.tolist() == planted, name
        assert match.correlation.min() > DUPLICATE_CORRELATION, name
    assert training.search(real[-20:]).correlation.max() < DUPLICATE_CORRELATION


def by_pillow(index: ThumbnailIndex, image: ImageArray) -> npt.NDArray[np.float32]:
    """Highest correlation of the image with each indexed one, one variant at a time, [N]."""
    best = np.full(len(index.descriptors), -1, dtype=np.float32)
    for variant in variants(image):
        pixels = pillow_thumbnail(variant)
        centred = pixels - pixels.mean()
        gap = centred / np.linalg.norm(centred) - index.mean
        best = np.maximum(best, index.descriptors @ (gap / np.linalg.norm(gap)))
    return best


@pytest.fixture(scope="module")
def many_smears() -> list[ImageArray]:
    """More than are compared without a screen; small, for the sake of time."""
    drawn = [draw_smear(np.random.default_rng([9, seed]), "Pre") for seed in range(40)]
    crops = [
        image[y : y + 64, x : x + 64] for image in drawn for y in (0, 70, 140) for x in range(0, 160, 30)
    ]
    return [np.ascontiguousarray(crop) for crop in crops[:600]]


def test_a_screened_search_finds_what_a_full_one_finds(many_smears: list[ImageArray]) -> None:
    index = ThumbnailIndex.from_images(many_smears[:560])
    queries = [*many_smears[560:568], *(np.rot90(darkened(many_smears[i])) for i in (3, 99, 301))]

    match = index.search(queries)

    full = np.stack([by_pillow(index, query) for query in queries])  # [n, N]
    assert match.correlation == pytest.approx(full.max(axis=1), abs=1e-4)
    assert match.index.tolist() == full.argmax(axis=1).tolist()


def test_a_set_full_of_copies_is_searched_in_full(many_smears: list[ImageArray]) -> None:
    """Every indexed image is a candidate: the screen must not cut any off."""
    copies = [*many_smears[:1], *(mildly_noisy(many_smears[0]) for _ in range(519)), *many_smears[1:81]]

    match = ThumbnailIndex.from_images(copies).search([many_smears[0], many_smears[5]])

    assert match.correlation == pytest.approx([1, 1], abs=1e-5)
    assert match.index.tolist() == [0, 524]


def test_new_images_are_not_taken_for_copies(smears: list[ImageArray]) -> None:
    new = [draw_smear(np.random.default_rng(100 + seed), "Early") for seed in range(6)]

    match = ThumbnailIndex.from_images(smears).search(new)

    assert match.correlation.max() < DUPLICATE_CORRELATION


def test_copies_are_grouped_within_their_class_only(smears: list[ImageArray]) -> None:
    images = [*smears, recompressed(30)(smears[2]), blurred(smears[2]), smears[5]]
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
