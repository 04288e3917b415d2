"""What a downloaded archive must be, and what an output folder may hold."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from masan.archive import check_folder, find_saved, prepare_folder, unpack, verify_archive
from masan.errors import ArchiveCorruptedError, OutputFolderError

Edit = Callable[[dict[str, bytes], list[dict[str, Any]]], None]


def make_archive(path: Path, count: int = 3, edit: Edit | None = None) -> Path:
    """An archive of `count` files and their manifest; `edit` may spoil files and rows first."""
    files = {f"pro_b/{index:06d}.png": f"image {index}".encode() for index in range(count)}
    rows: list[dict[str, Any]] = [
        {
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "class_slug": "pro_b",
            "seed": "7",
            "checkpoint": "b-all@1",
        }
        for name, content in files.items()
    ]
    if edit is not None:
        edit(files, rows)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return path


def change_a_byte(files: dict[str, bytes], rows: list[dict[str, Any]]) -> None:
    files["pro_b/000001.png"] = b"another 1"


def lose_a_file(files: dict[str, bytes], rows: list[dict[str, Any]]) -> None:
    del files["pro_b/000001.png"]


def add_a_file(files: dict[str, bytes], rows: list[dict[str, Any]]) -> None:
    files["pro_b/000009.png"] = b"nobody named me"


def climb_out(files: dict[str, bytes], rows: list[dict[str, Any]]) -> None:
    files["../evil.png"] = files.pop("pro_b/000001.png")
    rows[1]["file"] = "../evil.png"


def name_twice(files: dict[str, bytes], rows: list[dict[str, Any]]) -> None:
    rows.append(rows[0])


def forget_the_digest(files: dict[str, bytes], rows: list[dict[str, Any]]) -> None:
    del rows[2]["sha256"]


def test_a_whole_archive_is_accepted(tmp_path: Path) -> None:
    rows = verify_archive(make_archive(tmp_path / "result.zip"))

    assert [row["file"] for row in rows] == ["pro_b/000000.png", "pro_b/000001.png", "pro_b/000002.png"]


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (change_a_byte, "pro_b/000001.png: its sha256"),
        (lose_a_file, "pro_b/000001.png: named but absent"),
        (add_a_file, "pro_b/000009.png: present but not named"),
        (climb_out, "a line that names no image"),
        (name_twice, "a file is named twice"),
        (forget_the_digest, "pro_b/000002.png has no sha256"),
    ],
)
def test_a_spoilt_archive_is_refused_by_name(tmp_path: Path, edit: Edit, named: str) -> None:
    path = make_archive(tmp_path / "result.zip", edit=edit)

    with pytest.raises(ArchiveCorruptedError, match=named):
        verify_archive(path)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "result.zip")
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(ArchiveCorruptedError, match="not a whole zip archive"):
        verify_archive(path)


def test_unpacked_images_are_recognised_as_the_job_they_are(tmp_path: Path) -> None:
    saved = unpack(make_archive(tmp_path / "result.zip"), tmp_path / "out")

    assert [image.read_bytes() for image in saved.images] == [b"image 0", b"image 1", b"image 2"]
    assert find_saved(tmp_path / "out") == saved
    assert saved.describe() == "3 pro_b images of b-all@1 (seed 7)"


def test_two_jobs_are_never_mixed_silently(tmp_path: Path) -> None:
    unpack(make_archive(tmp_path / "result.zip"), tmp_path / "out")

    with pytest.raises(OutputFolderError, match=r"already holds 3 pro_b images of b-all@1 \(seed 7\)"):
        prepare_folder(tmp_path / "out", replace=False)


def test_certificate_comes_along_and_goes_with_its_images(tmp_path: Path) -> None:
    path = make_archive(
        tmp_path / "result.zip", edit=lambda files, _: files.update({"certificate.json": b"{}"})
    )
    verify_archive(path)
    unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "certificate.json").read_bytes() == b"{}"

    prepare_folder(tmp_path / "out", replace=True)

    assert list((tmp_path / "out").iterdir()) == []


def test_replacing_removes_what_the_manifest_names(tmp_path: Path) -> None:
    unpack(make_archive(tmp_path / "result.zip"), tmp_path / "out")
    (tmp_path / "out" / "contact_sheet.png").touch()

    prepare_folder(tmp_path / "out", replace=True)

    assert list((tmp_path / "out").iterdir()) == []


def test_replacing_never_touches_other_files(tmp_path: Path) -> None:
    unpack(make_archive(tmp_path / "result.zip"), tmp_path / "out")
    mine = tmp_path / "out" / "pro_b" / "my_own.png"
    mine.write_bytes(b"precious")

    with pytest.raises(OutputFolderError, match=r"pro_b/my_own\.png"):
        prepare_folder(tmp_path / "out", replace=True)

    assert mine.read_bytes() == b"precious"
    assert len(list((tmp_path / "out" / "pro_b").iterdir())) == 4


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()

    with pytest.raises(OutputFolderError, match="is a file"):
        check_folder(tmp_path / "out", replace=True)
