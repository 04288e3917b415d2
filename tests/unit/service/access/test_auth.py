"""Who may ask: the scopes of a principal, and the address that is listened on."""

import pytest

from service.access.api_keys import ApiKey, hash_key
from service.access.auth import Principal, Scope, check_binding, tenant_of
from service.access.key_ring import LOCAL, KeyRing
from service.errors import SettingsError
from service.settings import ServiceSettings

KEY = "mk_0123456789abcdef"


def settings(**changes: object) -> ServiceSettings:
    return ServiceSettings(**{"model_store_url": "store", "result_store_url": "results"} | changes)  # type: ignore[arg-type]


def test_admin_may_do_everything_and_others_what_they_were_given() -> None:
    admin, maker = (Principal("x", frozenset({scope})) for scope in (Scope.ADMIN, Scope.GENERATE))

    assert all(admin.may(scope) for scope in Scope)
    assert [scope for scope in Scope if maker.may(scope)] == [Scope.GENERATE]


def test_a_tenant_is_the_id_of_its_key() -> None:
    assert tenant_of(Principal("lab", frozenset())) == "lab"
    assert tenant_of(LOCAL) == ""


def test_listening_beyond_loopback_needs_a_key() -> None:
    open_to_all = settings(host="0.0.0.0")  # noqa: S104

    with pytest.raises(SettingsError, match="MASAN_HOST"):
        check_binding(open_to_all, KeyRing([]))
    check_binding(
        open_to_all, KeyRing([ApiKey(id="lab", sha256=hash_key(KEY), scopes=frozenset({Scope.GENERATE}))])
    )
    check_binding(settings(), KeyRing([]))


def test_key_is_not_in_the_settings_text() -> None:
    assert KEY not in repr(settings(api_key=KEY))
