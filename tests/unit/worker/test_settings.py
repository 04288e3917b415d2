from pathlib import Path

import pytest

from worker.settings import WorkerSettings, WorkerSettingsError, load_settings, usable_cores


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASAN_MODEL_STORE_URL", str(tmp_path))
    monkeypatch.setenv("MASAN_RESULT_STORE_URL", str(tmp_path))


def test_defaults_need_the_two_stores_alone() -> None:
    settings = load_settings()

    assert settings.default_model == "b-all@production"
    assert settings.device == "auto"
    assert settings.host == "127.0.0.1"
    assert settings.threads is None
    assert settings.generator == "auto"
    assert settings.encode_threads >= 1


@pytest.mark.parametrize(
    ("content", "most"),
    [("100000 100000", 1), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", None)],
)
def test_a_containers_quota_limits_the_cores(tmp_path: Path, content: str, most: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    unlimited = usable_cores(tmp_path / "absent")

    assert usable_cores(quota) == (unlimited if most is None else min(most, unlimited))


def test_two_workers_without_a_name_get_different_ones() -> None:
    assert load_settings().worker_name != load_settings().worker_name


def test_settings_cannot_be_changed() -> None:
    settings: WorkerSettings = load_settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.threads = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MASAN_DEVICE", "tpu"),
        ("MASAN_THREADS", "0"),
        ("MASAN_THREADS", "many"),
        ("MASAN_GENERATOR", "fast"),
        ("MASAN_ENCODE_THREADS", "-1"),
        ("MASAN_CACHED_GENERATORS", "0"),
        ("MASAN_MICRO_BATCH_TIMEOUT_S", "0"),
        ("MASAN_METRICS_PORT", "70000"),
        ("MASAN_LOG_LEVEL", "loud"),
        ("MASAN_WORKER_NAME", "has space"),
        ("MASAN_DEFAULT_MODEL", ""),
        ("MASAN_RESULT_STORE_URL", ""),
    ],
)
def test_a_wrong_value_is_named_and_shown(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(WorkerSettingsError, match=f"{variable} = '{value}'"):
        load_settings()


def test_a_missing_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASAN_MODEL_STORE_URL")

    with pytest.raises(WorkerSettingsError, match="MASAN_MODEL_STORE_URL is not set"):
        load_settings()


def test_a_wrong_redis_url_does_not_give_its_password_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASAN_REDIS_URL", "http://:hunter2@host")

    with pytest.raises(WorkerSettingsError, match="MASAN_REDIS_URL") as caught:
        load_settings()

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:6379/0", "rediss://:secret@host:1/2", "unix:///run/x.sock"]
)
def test_redis_urls_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MASAN_REDIS_URL", url)

    assert load_settings().redis_url == url
