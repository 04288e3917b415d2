"""The search asked for every image finds what the reference set's own search finds."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from model_store.quality.projected_thumbnails import ProjectedThumbnails
from model_store.quality.thumbnails import ThumbnailIndex
from tests.smears import draw_smear
from worker.copy_search import CopySearch

ImageArray = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def smears() -> list[ImageArray]:
    return [draw_smear(np.random.default_rng(seed), "Early") for seed in range(10)]


@pytest.fixture(scope="module")
def thumbnails(smears: list[ImageArray]) -> ProjectedThumbnails:
    return ProjectedThumbnails.of(ThumbnailIndex.from_images(smears[:7]))


def test_it_finds_what_the_reference_sets_search_finds(
    smears: list[ImageArray], thumbnails: ProjectedThumbnails
) -> None:
    queries = [*smears[5:], smears[0][::-1].transpose(1, 0, 2), np.roll(smears[1], 4, axis=1)]

    found = [CopySearch(thumbnails).nearest(np.ascontiguousarray(query)) for query in queries]

    assert found == pytest.approx(thumbnails.search(queries).correlation, abs=1e-5)
    assert max(found[2:5]) < 0.5 < min(found[0], found[1], *found[5:])


def test_it_leaves_the_set_as_it_is(smears: list[ImageArray], thumbnails: ProjectedThumbnails) -> None:
    mean, descriptors = thumbnails.mean.copy(), thumbnails.descriptors.copy()
    search = CopySearch(thumbnails)

    assert search.nearest(smears[0]) == search.nearest(smears[0])
    assert np.array_equal(thumbnails.mean, mean)
    assert np.array_equal(thumbnails.descriptors, descriptors)


def test_an_image_without_structure_is_like_nothing(thumbnails: ProjectedThumbnails) -> None:
    assert abs(CopySearch(thumbnails).nearest(np.full((224, 224, 3), 240, dtype=np.uint8))) < 0.5


def blobs(seed: int) -> ImageArray:
    """Quick to make, and as smooth as a smear: what many images are like is searched by way of a screen."""
    noise = np.random.default_rng(seed).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))


@pytest.fixture(scope="module")
def many() -> ProjectedThumbnails:
    return ProjectedThumbnails.of(ThumbnailIndex.from_images([blobs(seed) for seed in range(600)]))


@pytest.mark.parametrize("in_bytes", [False, True], ids=["floats", "bytes"])
def test_among_many_it_finds_the_same_as_without_a_screen(many: ProjectedThumbnails, in_bytes: bool) -> None:
    search = CopySearch(many, in_bytes=in_bytes)
    half = (0.5 * blobs(5).astype(float) + 0.5 * blobs(1000)).round().astype(np.uint8)
    queries = [
        *(blobs(seed) for seed in range(1000, 1020)),
        blobs(3)[:, ::-1],
        half,
        blobs(7).transpose(1, 0, 2),
    ]

    found = [search.nearest(np.ascontiguousarray(query)) for query in queries]

    assert found == pytest.approx(many.search(queries).correlation, abs=1e-5)
    assert max(found[:20]) < 0.6 < min(found[20], found[22])


def test_bytes_and_floats_find_the_same(many: ProjectedThumbnails) -> None:
    images = [blobs(seed) for seed in range(1000, 1010)]

    by_bytes, by_floats = (
        [CopySearch(many, in_bytes=in_bytes).nearest(image) for image in images] for in_bytes in (True, False)
    )

    assert by_bytes == by_floats
