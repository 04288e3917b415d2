"""The keys in force: found by hash, refused once revoked or expired, read again when their file changes."""

import json
import logging
import os
from pathlib import Path

import pytest

from service.access.api_keys import ApiKey, KeyLimits, Scope, hash_key
from service.access.key_ring import LOOK_EVERY_S, KeyRing, Principal
from service.errors import SettingsError
from service.settings import ServiceSettings

KEY = "mk_0123456789abcdef"
NOW = 1_800_000_000.0


class Ticks:
    """A monotonic clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_a_look(self) -> None:
        self.now += LOOK_EVERY_S


def key_row(key: str = KEY, **changes: object) -> dict[str, object]:
    return {"id": "lab", "sha256": hash_key(key), "scopes": ["generate"]} | changes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "keys.jsonl"
    path.write_text(json.dumps(key_row()) + "\n\n")
    return path


def ring_of(path: Path) -> tuple[KeyRing, Ticks]:
    ticks = Ticks()
    return KeyRing([], path, monotonic=ticks), ticks


def change(path: Path, text: str) -> None:
    aside = path.with_name("aside")
    aside.write_text(text)
    aside.replace(path)


def test_key_is_found_by_its_hash_with_its_limits(path: Path) -> None:
    path.write_text(json.dumps(key_row(images_per_day=5)))
    ring, _ = ring_of(path)

    assert ring.find(KEY, NOW) == Principal("lab", frozenset({Scope.GENERATE}), KeyLimits(images_per_day=5))
    assert [ring.find(other, NOW) for other in ("", KEY + "x", KEY[:-1], hash_key(KEY))] == [None] * 4


@pytest.mark.parametrize(
    ("change", "now", "is_known"),
    [
        ({"revoked_at": "2020-01-01T00:00:00Z"}, NOW, False),
        ({"expires_at": "2030-01-01T00:00:00Z"}, 1_893_455_999.0, True),
        ({"expires_at": "2030-01-01T00:00:00Z"}, 1_893_456_000.0, False),
    ],
)
def test_revoked_and_expired_keys_are_refused(
    path: Path, change: dict[str, object], now: float, is_known: bool
) -> None:
    path.write_text(json.dumps(key_row() | change))

    assert (ring_of(path)[0].find(KEY, now) is not None) is is_known


def test_changed_file_is_read_again_at_the_next_look(path: Path) -> None:
    ring, ticks = ring_of(path)
    change(path, json.dumps(key_row("mk_another-key-0123")))

    assert ring.find(KEY, NOW) is not None
    ticks.pass_a_look()
    assert ring.find(KEY, NOW) is None
    assert ring.find("mk_another-key-0123", NOW) is not None


@pytest.mark.parametrize("text", ["{", json.dumps(key_row(id="no id")), None])
def test_broken_or_missing_file_keeps_the_last_good_keys_and_says_so(
    path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ring, ticks = ring_of(path)
    if text is None:
        path.unlink()
    else:
        change(path, text)
    ticks.pass_a_look()

    assert ring.find(KEY, NOW) is not None
    assert ring.find("mk_anything-else-00", NOW) is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    change(path, "")
    ticks.pass_a_look()
    assert ring.find(KEY, NOW) is None


def test_file_without_keys_lets_nobody_in(path: Path) -> None:
    path.write_text("")
    ring, _ = ring_of(path)

    assert bool(ring)
    assert ring.find("", NOW) is None
    assert not KeyRing([])


def test_file_unlike_the_last_is_noticed_though_its_time_is_the_same(path: Path) -> None:
    ring, ticks = ring_of(path)
    before = path.stat()
    change(path, json.dumps(key_row("mk_another-key-0123")))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    ticks.pass_a_look()

    assert ring.find(KEY, NOW) is None


def test_all_keys_are_compared() -> None:
    keys = [ApiKey.model_validate(key_row(f"mk_key-number-{i}-of-three", id=f"lab{i}")) for i in range(3)]

    assert KeyRing(keys).find(KEY, NOW) is None
    assert [KeyRing(keys).find(f"mk_key-number-{i}-of-three", NOW) for i in range(3)] == [
        Principal(f"lab{i}", frozenset({Scope.GENERATE})) for i in range(3)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "[" * 100_000,
        json.dumps(key_row(scopes=["everything"])),
        json.dumps(key_row(sha256="x")),
        json.dumps(key_row() | {"key": KEY}),
        json.dumps(key_row(images_per_day=0)),
        json.dumps(key_row(expires_at="2030-01-01T00:00:00")),
    ],
    ids=lambda line: line[:60],
)
def test_unusable_line_is_told_by_number_without_its_content(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(json.dumps(key_row()) + "\n" + line)
    settings = ServiceSettings(model_store_url="store", result_store_url="results", api_keys_file=path)

    with pytest.raises(SettingsError, match="line 2") as raised:
        KeyRing.from_settings(settings)

    assert KEY not in str(raised.value)
