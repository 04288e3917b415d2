from typing import Any

import pytest
from pydantic import ValidationError

from model_store.manifest import FileEntry, Manifest
from tests.checkpoints import describe, tiny_config


def _manifest(**changes: Any) -> Manifest:
    return describe("tiny", "1", b"weights", tiny_config(), **changes)


def test_json_and_back_is_the_same() -> None:
    manifest = _manifest()

    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Has Capitals"),
        ("name", "../up"),
        ("version", "a/b"),
        ("classes", ()),
        ("classes", ("pro_b", "pro_b")),
        ("classes", ("Pro B",)),
        ("resolution", 0),
        ("unknown", 1),
    ],
)
def test_what_a_manifest_must_say_is_checked(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        _manifest(**{field: value})


def test_a_file_entry_cannot_name_another_folder() -> None:
    with pytest.raises(ValidationError):
        FileEntry(path="../weights.safetensors", sha256="0" * 64, size_bytes=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", "cellgan"),
        ("config", {"class_count": 3}),
        ("classes", ("pro_b", "benign")),
        ("resolution", 32),
        ("weights", FileEntry(path="weights.safetensors", sha256="1" * 64, size_bytes=1)),
    ],
)
def test_the_digest_covers_what_determines_an_image(field: str, value: object) -> None:
    assert _manifest(**{field: value}).digest != _manifest().digest


@pytest.mark.parametrize(("field", "value"), [("name", "other"), ("version", "2"), ("intended_use", "none")])
def test_the_digest_leaves_out_what_does_not(field: str, value: object) -> None:
    assert _manifest(**{field: value}).digest == _manifest().digest


def test_class_index_is_the_place_in_the_list() -> None:
    assert _manifest().class_index("pro_b") == 1
    with pytest.raises(KeyError):
        _manifest().class_index("unknown")
