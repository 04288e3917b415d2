import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.smears import make_smear_dataset
from training.data import load_dataset
from training.errors import DatasetInvalidError
from training.sources import image_files, open_source, other_files, pack


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_smear_dataset(tmp_path_factory.mktemp("sources") / "smears", per_class=2, size=64)
    (root / "Pro/notes.txt").write_text("not packed")
    (root / "README.md").write_text("not packed")
    return root


@pytest.fixture
def packed(smears: Path, tmp_path: Path) -> Path:
    target = tmp_path / "smears.tar"
    pack(smears, target)
    return target


def test_packed_file_holds_the_images_byte_for_byte(smears: Path, packed: Path) -> None:
    folder, file = open_source(smears), open_source(packed)

    names = [name for each in file.folders for name in image_files(file, each)]

    assert file.folders == folder.folders
    assert names == [name for each in folder.folders for name in image_files(folder, each)]
    assert all(file.read(name) == (smears / name).read_bytes() for name in names)
    assert other_files(file) == {}


def test_packed_dataset_is_the_same_dataset(smears: Path, packed: Path, tmp_path: Path) -> None:
    from_folder = load_dataset(smears, resolution=32, cache_dir=tmp_path / "one")
    from_file = load_dataset(packed, resolution=32, cache_dir=tmp_path / "two")

    assert from_file.digest == from_folder.digest
    assert np.array_equal(from_file.images, from_folder.images)
    assert from_file.files == from_folder.files


def test_packing_twice_gives_the_same_file(smears: Path, packed: Path, tmp_path: Path) -> None:
    count = pack(smears, tmp_path / "again.tar")

    assert count == 8
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()


def test_classes_file_travels_with_the_images(tmp_path: Path) -> None:
    root = make_smear_dataset(tmp_path / "data", per_class=1, size=64)
    (root / "classes.toml").write_text(
        '[classes]\nBenign = "one"\nEarly = "two"\nPre = "three"\nPro = "four"\n'
    )

    pack(root, tmp_path / "packed.tar")

    dataset = load_dataset(tmp_path / "packed.tar", resolution=32, cache_dir=tmp_path / "cache")
    assert dataset.classes == ("one", "two", "three", "four")


def test_packed_files_are_not_overwritten(smears: Path, packed: Path) -> None:
    with pytest.raises(DatasetInvalidError, match=r"smears\.tar: exists"):
        pack(smears, packed)


def test_other_files_are_told_with_their_reason(smears: Path) -> None:
    (smears / "Pro/more").mkdir(exist_ok=True)
    (smears / "Pro/more/1.png").write_bytes(b"")

    reasons = other_files(open_source(smears))

    assert reasons["README.md"] == "lies in no class folder"
    assert reasons["Pro/more/1.png"] == "lies in a folder inside a class folder"
    assert reasons["Pro/notes.txt"].startswith(".txt is not an image's")


def test_damaged_image_in_a_packed_file_is_named(packed: Path) -> None:
    source = open_source(packed)
    name = image_files(source, "Benign")[0]
    content = packed.read_bytes()
    place = content.index(source.read(name))
    packed.write_bytes(content[: place + 100] + b"\0\1\2" + content[place + 103 :])

    with pytest.raises(DatasetInvalidError, match=f"{name} is damaged"):
        open_source(packed).read(name)


def test_file_that_was_cut_short_is_refused(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-40_000])

    with pytest.raises(DatasetInvalidError, match=r"was cut short|is not a packed dataset"):
        open_source(packed)


def test_other_tar_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "a.txt", "a.txt")

    for name in ("other.tar", "a.txt"):
        with pytest.raises(DatasetInvalidError, match="is not a packed dataset"):
            open_source(tmp_path / name)
