import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from model_store.file_store import FileStore


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileStore]:
    """One that renames and one that only puts."""
    yield FileStore(str(tmp_path / "files") if request.param == "local" else "memory://file-store-test")
    memory = fsspec.filesystem("memory")
    if memory.exists("/file-store-test"):
        memory.rm("/file-store-test", recursive=True)


def test_replace_creates_and_overwrites(files: FileStore) -> None:
    files.replace("a/b.txt", b"one")
    files.replace("a/b.txt", b"two")

    assert files.read("a/b.txt") == b"two"


def test_replace_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    files = FileStore(str(tmp_path))

    files.replace("a/b.txt", b"one")

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failed_replace_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FileStore(str(tmp_path))
    files.replace("b.txt", b"old")

    with pytest.raises(TypeError):
        files.replace("b.txt", "not bytes")  # type: ignore[arg-type]

    assert files.read("b.txt") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_a_file_written_piece_by_piece_is_there_in_the_end(files: FileStore) -> None:
    with files.creating("a/b.txt") as file:
        file.write(b"one")
        was_there = files.exists("a/b.txt")
        file.write(b"two")

    assert not was_there
    assert files.read("a/b.txt") == b"onetwo"
    assert files.size("a/b.txt") == 6


def test_a_file_whose_writer_fails_is_not_there(files: FileStore) -> None:
    with pytest.raises(RuntimeError), files.creating("a/b.txt") as file:
        file.write(b"one")
        raise RuntimeError

    assert files.files("a") == ()


def test_an_absent_file_cannot_be_read(files: FileStore) -> None:
    with pytest.raises(FileNotFoundError):
        files.read("nothing")


def test_create_folder_refuses_one_that_is_there(files: FileStore) -> None:
    files.create_folder("f", {"x": b"1", "mark": b"2"})

    with pytest.raises(FileExistsError):
        files.create_folder("f", {"x": b"1", "mark": b"2"})

    assert files.read("f/mark") == b"2"


def test_create_folder_never_changes_what_is_there(files: FileStore) -> None:
    files.create_folder("f", {"x": b"1", "mark": b"2"})

    with pytest.raises(FileExistsError):
        files.create_folder("f", {"x": b"other", "mark": b"other"})

    assert (files.read("f/x"), files.read("f/mark")) == (b"1", b"2")


def test_one_of_many_racing_writers_creates_a_folder(tmp_path: Path) -> None:
    files = FileStore(str(tmp_path))
    winners: list[int] = []
    gate = threading.Barrier(8)

    def create(number: int) -> None:
        gate.wait()
        try:
            files.create_folder("f", {"x": b"%d" % number, "mark": b"%d" % number})
        except FileExistsError:
            return
        winners.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(winners) == 1
    assert files.read("f/x") == files.read("f/mark") == b"%d" % winners[0]
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_put_that_stopped_half_way_can_be_repeated() -> None:
    files = FileStore("memory://file-store-half")
    fsspec.filesystem("memory").pipe_file("/file-store-half/f/x", b"1")

    files.create_folder("f", {"x": b"1", "mark": b"2"})

    assert files.read("f/mark") == b"2"
    files.remove("")


def test_folders_are_listed_without_those_being_written(tmp_path: Path) -> None:
    files = FileStore(str(tmp_path))
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()

    assert files.folders() == ("a", "b")
    assert files.folders("nothing") == ()


def test_remove_takes_a_whole_folder_and_forgives_an_absent_one(files: FileStore) -> None:
    files.replace("a/b.txt", b"one")

    files.remove("a")
    files.remove("a")

    assert not files.exists("a/b.txt")


def test_a_path_cannot_leave_the_store(files: FileStore) -> None:
    with pytest.raises(ValueError, match="leaves the store"):
        files.read("../outside")


@pytest.mark.parametrize("url", ["nosuch://bucket", "gopher://x"])
def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="cannot open the store"):
        FileStore(url)


def test_files_are_listed_with_size_and_time(files: FileStore) -> None:
    files.replace("a/b.txt", b"four")
    files.replace("a/deeper/c.txt", b"")

    (found,) = files.files("a")

    assert (found.path, found.size_bytes, found.is_aside) == ("a/b.txt", 4, False)
    assert abs(found.modified_at - time.time()) < 60
    assert files.files("nowhere") == ()


def test_a_file_that_is_being_written_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / ".b.txt.0f").write_bytes(b"half")

    assert [file.is_aside for file in FileStore(str(tmp_path)).files()] == [True]


def test_a_file_is_read_from_where_one_likes(files: FileStore) -> None:
    files.replace("a", b"0123456789")

    with files.open("a") as file:
        file.seek(3)
        assert file.read(4) == b"3456"


def test_the_room_on_the_disk_is_known_before_the_folder_is_there(tmp_path: Path) -> None:
    assert (FileStore(str(tmp_path / "not" / "yet")).free_bytes() or 0) > 0
    assert FileStore("memory://file-store-test").free_bytes() is None


def test_only_a_remote_store_signs_urls(files: FileStore) -> None:
    assert files.signed_url("a", ttl_s=1, file_name="a", media_type="text/plain") is None
    assert files.backend in {"file", "memory"}
    files.close()
