"""The keys file: replaced as a whole, for its owner's eyes, never holding a key."""

import time
from pathlib import Path

import pytest

from service.access.api_keys import (
    KEY_PREFIX,
    ApiKey,
    KeyChangeError,
    KeysFileError,
    Scope,
    create_key,
    hash_key,
    read_keys,
    revoke_key,
)

NOW = time.time()


def add(path: Path, key_id: str = "lab") -> str:
    return create_key(
        path, lambda sha256: ApiKey(id=key_id, sha256=sha256, scopes=frozenset({Scope.ADMIN})), NOW
    )


def test_a_key_has_256_random_bits_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys"

    keys = {add(path, f"lab{i}") for i in range(20)}

    assert len(keys) == 20
    assert {len(key) for key in keys} == {len(KEY_PREFIX) + 43}
    assert {line.sha256 for line in read_keys(path)} == {hash_key(key) for key in keys}
    assert not any(key in path.read_text() for key in keys)


def test_the_file_is_the_owners_alone_also_if_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o666)

    add(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["keys"]


def test_revoking_marks_the_line_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add(path, "lab")
    add(path, "other")
    other = read_keys(path)[1]

    revoke_key(path, "lab", NOW)

    assert [key.state(NOW) for key in read_keys(path)] == ["revoked", "active"]
    assert read_keys(path)[1] == other
    with pytest.raises(KeyChangeError, match="there are: other"):
        revoke_key(path, "lab", NOW)


def test_an_id_has_one_active_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add(path)
    before = path.read_bytes()

    with pytest.raises(KeyChangeError, match="active key"):
        add(path)

    assert path.read_bytes() == before


def test_a_broken_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("{}\n")

    with pytest.raises(KeysFileError, match=r"line 1 .*see id, scopes, sha256"):
        add(path)

    assert path.read_text() == "{}\n"
    with pytest.raises(KeysFileError, match="cannot be opened"):
        add(tmp_path / "absent" / "keys")
