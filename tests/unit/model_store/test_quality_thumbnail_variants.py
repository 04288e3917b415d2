"""All thumbnails of an image at once are, to the last bit, what Pillow makes of each variant by itself."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model_store.quality.thumbnail_variants import FEATURE_COUNT, thumbnail, thumbnail_variants
from tests.smears import draw_smear

ImageArray = npt.NDArray[np.uint8]


def pillow_thumbnail(image: ImageArray) -> npt.NDArray[np.float32]:
    """Box-resized upper part, [F]."""
    height, width = image.shape[:2]
    picture = Image.fromarray(np.ascontiguousarray(image))
    small = picture.resize((28, 32), Image.Resampling.BOX, box=(0, 0, width, height * (192 / 224)))
    return np.asarray(small, dtype=np.float32).ravel()


def variants(image: ImageArray) -> Iterator[ImageArray]:
    """The image in its eight orientations, each at every search offset; edges are repeated."""
    scale = image.shape[0] / 224
    offsets = [round(offset * scale) for offset in (-8, -4, 0, 4, 8)]
    margin = max(offsets)
    for turns in range(4):
        for turned in (np.rot90(image, turns), np.rot90(image, turns)[:, ::-1]):
            padded = np.pad(turned, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
            height, width = turned.shape[:2]
            for dy in offsets:
                for dx in offsets:
                    yield padded[margin + dy : margin + dy + height, margin + dx : margin + dx + width]


def images() -> dict[str, ImageArray]:
    rng = np.random.default_rng(0)
    smear = draw_smear(rng, "Early")
    at_256 = np.asarray(Image.fromarray(smear).resize((256, 256), Image.Resampling.BICUBIC))
    noise = {
        f"{side} px": rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (16, 31, 128, 300)
    }
    wide = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    return {"smear": smear, "smear at 256 px": at_256, "wide": wide, **noise}


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in images().items()])
def test_every_variant_is_pillow_s_thumbnail_of_it(image: ImageArray) -> None:
    expected = sorted(pillow_thumbnail(variant).tobytes() for variant in variants(image))

    found = thumbnail_variants(image)

    assert found.shape == (200, FEATURE_COUNT)
    assert sorted(row.tobytes() for row in found) == expected


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in images().items()])
def test_one_thumbnail_is_pillow_s(image: ImageArray) -> None:
    assert np.array_equal(thumbnail(image), pillow_thumbnail(image))
