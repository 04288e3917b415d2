"""API keys: found by hash, refused otherwise, never kept in the clear."""

import hashlib
import json
from pathlib import Path

import pytest

from service.auth import ApiKey, KeyRing, Principal, Scope, check_binding
from service.errors import SettingsError
from service.settings import ServiceSettings

KEY = "mk_0123456789abcdef"


def settings(**changes: object) -> ServiceSettings:
    return ServiceSettings(**{"model_store_url": "store", "result_store_url": "results"} | changes)  # type: ignore[arg-type]


def key_row(key: str = KEY, scopes: tuple[str, ...] = ("generate",)) -> dict[str, object]:
    return {"id": "lab", "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": list(scopes)}


def test_key_is_found_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(json.dumps(key_row()) + "\n\n")

    ring = KeyRing.from_settings(settings(api_keys_file=path))

    assert ring.find(KEY) == Principal("lab", frozenset({Scope.GENERATE}))
    assert ring.find(KEY + "x") is None
    assert ring.find("") is None


def test_revoked_key_among_others_is_refused() -> None:
    ring = KeyRing([ApiKey.model_validate(key_row(f"key-number-{i}-of-three")) for i in range(3)])

    assert ring.find(KEY) is None


def test_admin_may_do_everything_and_others_what_they_were_given() -> None:
    admin, maker = (Principal("x", frozenset({scope})) for scope in (Scope.ADMIN, Scope.GENERATE))

    assert all(admin.may(scope) for scope in Scope)
    assert [scope for scope in Scope if maker.may(scope)] == [Scope.GENERATE]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        json.dumps(key_row(scopes=("everything",))),
        json.dumps(key_row() | {"sha256": "x"}),
        json.dumps(key_row() | {"key": KEY}),
    ],
)
def test_unusable_line_is_told_by_number_without_its_content(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(json.dumps(key_row()) + "\n" + line)

    with pytest.raises(SettingsError, match="line 2") as raised:
        KeyRing.from_settings(settings(api_keys_file=path))

    assert KEY not in str(raised.value)


def test_listening_beyond_loopback_needs_a_key() -> None:
    open_to_all = settings(host="0.0.0.0")  # noqa: S104

    with pytest.raises(SettingsError, match="MASAN_HOST"):
        check_binding(open_to_all, KeyRing([]))
    check_binding(open_to_all, KeyRing([ApiKey.model_validate(key_row())]))
    check_binding(settings(), KeyRing([]))


def test_key_is_not_in_the_settings_text() -> None:
    assert KEY not in repr(settings(api_key=KEY))
