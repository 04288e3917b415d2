"""A page's images are those of the report, and a planted copy stands beside its source."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model_store.generators.registry import Generator
from model_store.quality.series import HELD_OUT_BLOCK
from model_store.report import ClassChecks, FlaggedImage
from model_store.report_page import THUMBNAIL_PX
from tests.checkpoints import CLASSES
from tests.smears import make_smear_dataset
from training.data import Dataset, load_dataset
from training.evaluation.drawing import draw_images
from training.evaluation.report_images import Painter, contact_sheets, patient_images, thumbnail

DIGEST = "ab" * 32
COPIED = 3
"""Index of the generated image that the planted real one equals."""


@pytest.fixture
def painter(tiny_generator: Generator) -> Painter:
    return Painter(generator=tiny_generator, digest=DIGEST, classes=CLASSES, seed=9, truncation=0.7)


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight images of two classes at the tiny generator's size."""
    root = tmp_path_factory.mktemp("report_images")
    folder = make_smear_dataset(root / "smears", per_class=4)
    for name in ("Early", "Pre"):
        (folder / name).rename(root / name)
    (folder / "classes.toml").write_text('[classes]\nBenign = "benign"\nPro = "pro_b"\n')
    return load_dataset(folder, resolution=16, deduplicate=False, cache_dir=folder.parent / "cache")


@pytest.fixture
def planted(smears: Dataset, painter: Painter) -> Dataset:
    """The smears with a training image that is the generated image COPIED of pro_b."""
    images = smears.images.copy()
    images[planted_position(smears)] = painter.draw("pro_b", [COPIED])[0]
    return replace(smears, images=images)


def planted_position(dataset: Dataset) -> int:
    return int(np.flatnonzero((dataset.labels == 1) & (dataset.blocks != HELD_OUT_BLOCK))[0])


def test_sheets_show_the_first_images_of_every_class(painter: Painter) -> None:
    sheets = contact_sheets(painter, per_class=2)

    assert list(sheets) == list(CLASSES)
    assert [picture.caption for picture in sheets["pro_b"]] == [
        "pro_b, image 0 of seed 9",
        "pro_b, image 1 of seed 9",
    ]
    with Image.open(io.BytesIO(sheets["pro_b"][0].content)) as image:
        assert (image.format, image.size) == ("WEBP", (THUMBNAIL_PX, THUMBNAIL_PX))


def test_painter_draws_what_the_report_judged(tiny_generator: Generator, painter: Painter) -> None:
    judged = draw_images(tiny_generator, DIGEST, "pro_b", 1, 4, seed=9, truncation=0.7)

    assert np.array_equal(painter.draw("pro_b", [3, 1]), judged[[3, 1]])


def test_thumbnail_looks_like_the_image() -> None:
    pixels = np.full((64, 64, 3), (200, 120, 220), np.uint8)
    pixels[:32] = (240, 240, 230)

    with Image.open(io.BytesIO(thumbnail(pixels, "a", 64).content)) as image:
        shown = np.asarray(image.convert("RGB")).astype(int)

    assert np.abs(shown - pixels).mean() < 3


@pytest.mark.parametrize(
    "checks",
    [
        ClassChecks(
            n=6,
            memorized_ratio=1 / 6,
            flagged=(FlaggedImage(index=COPIED, similarity=1.0, source="an opaque name"),),
        ),
        ClassChecks(n=6, memorized_ratio=1 / 6),  # of a report that does not tell which
    ],
)
def test_copy_stands_beside_its_source(painter: Painter, planted: Dataset, checks: ClassChecks) -> None:
    clean = ClassChecks(n=6, memorized_ratio=0.0)

    patients = patient_images(painter, {"benign": clean, "pro_b": checks}, planted, per_class=1)

    assert list(patients.flagged) == ["pro_b"]
    pair = next(pair for pair in patients.flagged["pro_b"] if f"image {COPIED} " in pair.generated.caption)
    assert pair.real.caption == f"{planted.files[planted_position(planted)]} (pro_b)"
    assert pair.real.content == pair.generated.content
    assert pair.relation == "correlation of aligned thumbnails 1.00"


def test_nearest_real_image_is_found_in_the_judges_features(painter: Painter, planted: Dataset) -> None:
    patients = patient_images(painter, {}, planted, per_class=COPIED + 1)

    assert patients.flagged == {}
    assert {slug: len(pairs) for slug, pairs in patients.neighbours.items()} == dict.fromkeys(CLASSES, 4)
    pair = patients.neighbours["pro_b"][COPIED]
    assert pair.real.caption == f"{planted.files[planted_position(planted)]} (pro_b)"
    assert pair.relation == "cosine similarity 1.000 in efficientnet-lite2"
