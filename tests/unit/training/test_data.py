import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_store.quality.scale_bar import ScaleBarStyle
from tests.smears import make_smear_dataset
from training.data import load_dataset, slugify
from training.errors import DatasetInvalidError

REAL = "MASAN_TEST_DATA"


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smear_dataset(tmp_path_factory.mktemp("smears"), per_class=4)


def save_noise(path: Path, seed: int, width: int = 32, height: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_folders_become_classes_with_the_published_slugs(smears: Path, tmp_path: Path) -> None:
    dataset = load_dataset(smears, resolution=32, cache_dir=tmp_path)

    assert dataset.classes == ("benign", "early_pre_b", "pre_b", "pro_b")
    assert dataset.images_per_class() == dict.fromkeys(dataset.classes, 4)
    assert dataset.images.shape == (16, 32, 32, 3)
    assert dataset.images.dtype == np.dtype(np.uint8)
    assert dataset.labels.tolist() == sorted(dataset.labels.tolist())
    assert len(dataset.files) == len(dataset.styles) == len(dataset.blocks) == len(dataset) == 16
    assert dataset.resolution == 32


def test_second_reading_comes_from_the_cache_and_is_the_same(smears: Path, tmp_path: Path) -> None:
    first = load_dataset(smears, resolution=32, cache_dir=tmp_path)
    (cache,) = tmp_path.glob("*.npz")
    written = cache.stat().st_mtime_ns

    second = load_dataset(smears, resolution=32, cache_dir=tmp_path)

    assert cache.stat().st_mtime_ns == written
    assert second.digest == first.digest
    assert np.array_equal(second.images, first.images)
    assert np.array_equal(second.invented, first.invented)
    assert second.files == first.files


def test_digest_tells_treatments_apart(smears: Path, tmp_path: Path) -> None:
    digests = {
        load_dataset(smears, resolution=32, label_mode=mode, deduplicate=unique, cache_dir=tmp_path).digest
        for mode in ("keep", "inpaint", "mask")
        for unique in (True, False)
    }

    assert len(digests) == 6


def test_mask_marks_large_boxes_in_the_corner_only(smears: Path, tmp_path: Path) -> None:
    masked = load_dataset(smears, resolution=224, label_mode="mask", cache_dir=tmp_path)
    inpainted = load_dataset(smears, resolution=224, label_mode="inpaint", cache_dir=tmp_path)

    marked = masked.invented.any(axis=(1, 2))

    assert marked.tolist() == [style == str(ScaleBarStyle.LARGE_BOX) for style in masked.styles]
    assert 0 < marked.sum() < len(masked)
    assert not masked.invented[:, :150].any()
    assert not masked.invented[:, :, :150].any()
    assert not inpainted.invented.any()


def test_keep_leaves_images_as_they_are(smears: Path, tmp_path: Path) -> None:
    dataset = load_dataset(smears, resolution=224, label_mode="keep", cache_dir=tmp_path)

    with Image.open(smears / dataset.files[5]) as image:
        assert np.array_equal(dataset.images[5], np.asarray(image.convert("RGB")))


def test_duplicates_are_removed_where_asked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(2):
            save_noise(tmp_path / "data" / name / f"{number}.png", seed=number + 10 * (name == "b"))
    save_noise(tmp_path / "data/a/2.png", seed=0)

    unique, whole = (
        load_dataset(tmp_path / "data", resolution=32, deduplicate=d, cache_dir=tmp_path / "cache")
        for d in (True, False)
    )

    assert (len(unique), len(whole)) == (4, 5)


def test_files_that_are_no_images_are_skipped_and_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_noise(tmp_path / "data" / name / "1.png", seed=ord(name))
    (tmp_path / "data/a/2.png").write_bytes(b"not an image")
    save_noise(tmp_path / "data/b/3.png", seed=3, width=8, height=8)
    (tmp_path / "data/b/notes.txt").write_text("left alone")

    dataset = load_dataset(tmp_path / "data", resolution=32, cache_dir=tmp_path / "cache")

    assert dataset.files == ("a/1.png", "b/1.png")
    assert set(dataset.skipped) == {"a/2.png", "b/3.png", "b/notes.txt"}
    assert "8 px wide" in dataset.skipped["b/3.png"]


def test_oblong_images_are_cropped_to_their_middle(tmp_path: Path) -> None:
    save_noise(tmp_path / "data/a/1.png", seed=1, width=48, height=32)
    save_noise(tmp_path / "data/b/1.png", seed=2)

    dataset = load_dataset(tmp_path / "data", resolution=32, label_mode="keep", cache_dir=tmp_path / "cache")

    with Image.open(tmp_path / "data/a/1.png") as image:
        assert np.array_equal(dataset.images[0], np.asarray(image)[:, 8:40])


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        ([], "no class folders; at least 2"),
        (["a"], r"1 class folder \(a\); at least 2"),
        (["a", "a b", "A_B"], "same class slug"),
        (["a", "empty"], "class folder 'empty' holds no image"),
    ],
)
def test_folder_that_cannot_be_trained_on_says_why(tmp_path: Path, folders: list[str], reason: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for seed, name in enumerate(folders):
        (root / name).mkdir()
        if name != "empty":
            save_noise(root / name / "1.png", seed)

    with pytest.raises(DatasetInvalidError, match=reason):
        load_dataset(root, resolution=32, cache_dir=tmp_path / "cache")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalidError, match="nowhere: no such folder or packed file"):
        load_dataset(tmp_path / "nowhere", cache_dir=tmp_path)


def test_classes_file_and_argument_name_the_classes(tmp_path: Path) -> None:
    for seed, name in enumerate(("One", "Two")):
        save_noise(tmp_path / "data" / name / "1.png", seed)
    (tmp_path / "data/classes.toml").write_text('[classes]\nOne = "first"\nTwo = "second"\n')

    from_file = load_dataset(tmp_path / "data", resolution=32, cache_dir=tmp_path / "cache")
    given = load_dataset(
        tmp_path / "data", resolution=32, class_slugs={"Two": "last"}, cache_dir=tmp_path / "cache"
    )

    assert from_file.classes == ("first", "second")
    assert given.classes == ("first", "last")


def test_subset_keeps_what_is_asked_and_says_so_in_its_digest(smears: Path, tmp_path: Path) -> None:
    dataset = load_dataset(smears, resolution=32, cache_dir=tmp_path)

    half = dataset.subset(dataset.labels < 2)

    assert half.images_per_class() == {"benign": 4, "early_pre_b": 4, "pre_b": 0, "pro_b": 0}
    assert half.files == dataset.files[:8]
    assert half.digest != dataset.digest


@pytest.mark.parametrize(
    ("name", "slug"), [("Early Pre-B", "early_pre_b"), ("WBC", "wbc"), ("--", "class"), ("A  1", "a_1")]
)
def test_slugs_are_lower_case_words(name: str, slug: str) -> None:
    assert slugify(name) == slug


@pytest.mark.skipif(REAL not in os.environ, reason=f"{REAL} names no folder of real images")
def test_real_images_are_counted_as_published_without_their_duplicates() -> None:
    dataset = load_dataset(os.environ[REAL], resolution=128, label_mode="keep")

    assert dataset.images_per_class() == {"benign": 491, "early_pre_b": 965, "pre_b": 943, "pro_b": 750}
    assert dict(dataset.skipped) == {}
    assert set(dataset.blocks.tolist()) == set(range(5))
