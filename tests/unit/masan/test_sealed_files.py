"""Names and bytes of files in folders, zips and tars; what could lead elsewhere is no file."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from masan.errors import ArchiveCorruptedError
from masan.sealed_files import is_archive, open_files


def a_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.png", b"one")
        archive.writestr("b.txt", b"two")
    return path


def a_tar(path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in (("a/1.png", b"one"), ("b.txt", b"two")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def a_folder(path: Path) -> Path:
    (path / "a").mkdir(parents=True)
    (path / "a" / "1.png").write_bytes(b"one")
    (path / "b.txt").write_bytes(b"two")
    return path


@pytest.mark.parametrize("make", [a_zip, a_tar, a_folder])
def test_files_are_found_and_read(tmp_path: Path, make: type) -> None:
    with open_files(make(tmp_path / "files")) as files:
        assert sorted(files.names()) == ["a/1.png", "b.txt"]
        with files.open("a/1.png") as file:
            assert file.read() == b"one"
        with pytest.raises(KeyError):
            files.open("absent")


def test_links_are_named_but_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    with tarfile.open(tmp_path / "files.tar", "w") as tar:
        tar.add(folder / "link", "link")

    for path in (folder, tmp_path / "files.tar"):
        with open_files(path) as files:
            assert files.names() == ["link"]
            with pytest.raises(KeyError):
                files.open("link")


def test_name_that_is_there_twice_is_told_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")

    with open_files(tmp_path / "files.zip") as files:
        assert files.names() == ["a", "a"]


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "files"
    path.write_bytes(b"nothing")

    assert not is_archive(path)
    with pytest.raises(ArchiveCorruptedError), open_files(path):
        pass
