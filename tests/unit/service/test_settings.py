"""Settings of the service: a wrong value is named and keeps the process from starting."""

import os
import subprocess
import sys

import pytest

from service.errors import SettingsError
from service.settings import is_loopback, load_settings

STORES = {"MASAN_MODEL_STORE_URL": "store", "MASAN_RESULT_STORE_URL": "results"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MASAN_")]:
        monkeypatch.delenv(name)
    for name, value in STORES.items():
        monkeypatch.setenv(name, value)


def test_defaults_listen_on_loopback() -> None:
    settings = load_settings()

    assert settings.binds_to_loopback
    assert settings.default_model == "b-all@production"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MASAN_PORT", "many"),
        ("MASAN_PORT", "70000"),
        ("MASAN_REDIS_URL", "http://x"),
        ("MASAN_DEFAULT_MODEL", "../x"),
        ("MASAN_LOG_LEVEL", "LOUD"),
        ("MASAN_RESULT_TTL_S", "-1"),
        ("MASAN_MAX_QUEUE_IMAGES", "0"),
        ("MASAN_API_KEY", "short"),
        ("MASAN_MODEL_STORE_URL", ""),
    ],
)
def test_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=variable):
        load_settings()


def test_missing_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASAN_RESULT_STORE_URL")

    with pytest.raises(SettingsError, match="MASAN_RESULT_STORE_URL is not set"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value"), [("MASAN_API_KEY", "hunter2"), ("MASAN_REDIS_URL", "http://:hunter2@x")]
)
def test_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as raised:
        load_settings()

    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost"])
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])  # noqa: S104
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MASAN_PORT": "x"}, "MASAN_PORT"),
        ({"MASAN_HOST": "0.0.0.0"}, "MASAN_HOST"),  # noqa: S104
        ({"MASAN_API_KEYS_FILE": "/nowhere"}, "MASAN_API_KEYS_FILE"),
        ({"MASAN_MODEL_STORE_URL": "nothing://x"}, "MASAN_MODEL_STORE_URL"),
        ({"MASAN_RESULT_STORE_URL": "nothing://x"}, "MASAN_RESULT_STORE_URL"),
    ],
)
def test_process_refuses_to_start_with_one_line(environment: dict[str, str], named: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"], env=os.environ | environment, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
