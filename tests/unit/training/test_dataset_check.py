from pathlib import Path

import pytest

from tests.smears import make_smear_dataset
from training.dataset_check import check_dataset, require_trainable
from training.errors import DatasetInvalidError


@pytest.fixture
def smears(tmp_path: Path) -> Path:
    return make_smear_dataset(tmp_path / "smears", per_class=6)


def test_check_tells_counts_sizes_bars_and_series(smears: Path) -> None:
    check = check_dataset(smears)

    pro = check.classes[3]
    assert [c.folder for c in check.classes] == ["Benign", "Early", "Pre", "Pro"]
    assert [c.slug for c in check.classes] == ["benign", "early_pre_b", "pre_b", "pro_b"]
    assert all(c.images == c.kept == 6 for c in check.classes)
    assert pro.sizes == {(224, 224): 6}
    assert pro.series == {"small-box": (2, 1, 1, 1, 1)}
    assert set(check.classes[0].series) == {"large-box", "red", "small-box"}
    require_trainable(check)


def test_repeated_images_are_named_together(smears: Path) -> None:
    first = smears / "Pro/WBC-Pro-001.jpg"
    (smears / "Pro/WBC-Pro-007.jpg").write_bytes(first.read_bytes())

    check = check_dataset(smears)

    assert check.duplicates == (("Pro/WBC-Pro-001.jpg", "Pro/WBC-Pro-007.jpg"),)
    assert (check.classes[3].images, check.classes[3].kept) == (7, 6)
    assert "same field: Pro/WBC-Pro-001.jpg, Pro/WBC-Pro-007.jpg" in list(check.lines())


def test_unreadable_and_other_files_are_named(smears: Path) -> None:
    (smears / "Pre/broken.jpg").write_bytes(b"no image")
    (smears / "Pre/notes.txt").write_text("notes")

    lines = list(check_dataset(smears).lines())

    assert "skipped Pre/broken.jpg: is no image that can be read" in lines
    assert any(line.startswith("skipped Pre/notes.txt: .txt is not an image's") for line in lines)


def test_class_without_an_image_is_reported_and_then_refused(smears: Path) -> None:
    (smears / "Empty").mkdir()

    check = check_dataset(smears)

    assert any(line.startswith("Empty -> empty: 0 images") for line in check.lines())
    with pytest.raises(DatasetInvalidError, match="class folder 'Empty' holds no readable image"):
        require_trainable(check)


def test_single_class_is_reported_and_then_refused(tmp_path: Path) -> None:
    (make_smear_dataset(tmp_path / "all", per_class=1) / "Pro").rename(tmp_path / "Pro")
    (tmp_path / "one").mkdir()
    (tmp_path / "Pro").rename(tmp_path / "one/Pro")

    check = check_dataset(tmp_path / "one")

    assert check.classes[0].slug == "pro"
    with pytest.raises(DatasetInvalidError, match=r"1 class folder \(Pro\); at least 2 are needed"):
        require_trainable(check)


def test_slugs_can_be_given(smears: Path) -> None:
    check = check_dataset(smears, {"Early": "early"})

    assert [c.slug for c in check.classes] == ["benign", "early", "pre_b", "pro_b"]
    with pytest.raises(DatasetInvalidError, match="has no class folder 'Late'"):
        check_dataset(smears, {"Late": "late"})
    with pytest.raises(DatasetInvalidError, match="'Not a slug' is no class slug"):
        check_dataset(smears, {"Early": "Not a slug"})


def test_of_many_skipped_files_a_person_is_shown_the_first(smears: Path) -> None:
    for number in range(1200):
        (smears / f"note-{number:04d}.txt").touch()

    check = check_dataset(smears)

    skipped = [line for line in check.lines() if line.startswith(("skipped", "..."))]
    assert len(check.skipped) == 1200
    assert len(skipped) == 21
    assert skipped[-1] == "... and 1180 more such lines; --json has them all"
