"""A checkpoint carried from one store to another, and files that are none."""

import json
import zipfile
from pathlib import Path

import pytest

from masan.model_file import export_checkpoint, import_checkpoint
from model_store.errors import ModelAlreadyPublishedError
from model_store.store import ModelStore
from tests.unit.model_store.test_promotion import publish, report


@pytest.fixture
def carried(model_store: ModelStore, tmp_path: Path) -> Path:
    """`tiny@1` with its report and one that was made later, as a file."""
    publish(model_store, "1", report())
    checkpoint = model_store.resolve("tiny@1")
    later = json.dumps({"digest": checkpoint.digest, "made": "later"}).encode()
    model_store.attach_report(checkpoint, later)
    export_checkpoint(model_store, checkpoint, tmp_path / "tiny.zip")
    return tmp_path / "tiny.zip"


def test_a_checkpoint_arrives_as_it_was(model_store: ModelStore, carried: Path, tmp_path: Path) -> None:
    other = ModelStore(str(tmp_path / "other"))

    arrived = import_checkpoint(other, carried)

    origin = model_store.resolve("tiny@1")
    assert arrived.manifest == origin.manifest
    assert other.aliases("tiny") == {}
    for entry in (arrived.manifest.weights, *arrived.manifest.reports):
        assert other.read_file(arrived, entry.path) == model_store.read_file(origin, entry.path)
    assert other.attached_reports(arrived) == model_store.attached_reports(origin)


def test_the_same_checkpoint_gives_the_same_bytes(model_store: ModelStore, carried: Path) -> None:
    again = carried.with_name("again.zip")
    export_checkpoint(model_store, model_store.resolve("tiny@1"), again)

    assert again.read_bytes() == carried.read_bytes()


def test_a_version_is_not_overwritten(model_store: ModelStore, carried: Path) -> None:
    with pytest.raises(ModelAlreadyPublishedError):
        import_checkpoint(model_store, carried)


def spoil(path: Path, name: str, content: bytes | None) -> Path:
    """A copy whose member `name` is replaced, or with None left out."""
    spoilt = path.with_name("spoilt.zip")
    with zipfile.ZipFile(path) as origin, zipfile.ZipFile(spoilt, "w") as copy:
        for entry in origin.namelist():
            if entry != name:
                copy.writestr(entry, origin.read(entry))
        if content is not None:
            copy.writestr(name, content)
    return spoilt


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("weights.safetensors", b"others", "weights.safetensors"),
        ("weights.safetensors", None, "it names"),
        ("manifest.json", None, "is not what `masan models export` writes"),
        ("manifest.json", b"{}", "its manifest is none"),
        ("attached/0000.json", b'{"digest": "another"}', "a report in it is of another checkpoint"),
        ("more.txt", b"more", "it names"),
    ],
)
def test_a_spoilt_file_is_refused(
    carried: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    other = ModelStore(str(tmp_path / "other"))

    with pytest.raises(ValueError, match=said):
        import_checkpoint(other, spoil(carried, name, content))

    assert other.names() == ()


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK no zip")

    with pytest.raises(ValueError, match="is not what"):
        import_checkpoint(ModelStore(str(tmp_path / "other")), tmp_path / "x.zip")
