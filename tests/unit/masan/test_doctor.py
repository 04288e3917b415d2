"""What the doctor finds, on folders and ports that are made sick."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from masan.doctor import Finding, Patient, examine
from masan.doctor_command import BROKEN_EXIT_CODE
from masan.processes import free_port
from model_store.store import ModelStore
from tests.checkpoints import publish_tiny
from tests.unit.masan.test_client import ScriptedServer, answer


def findings(data_dir: Path, port: int | None = None, **changes: object) -> dict[str, Finding]:
    """The last finding of each name."""
    patient = Patient(data_dir, port or free_port(), data_dir / "cache", **changes)  # type: ignore[arg-type]
    return {finding.name: finding for finding in examine(patient)}


def test_this_machine_is_well(tmp_path: Path) -> None:
    found = findings(tmp_path / "data")

    assert {name for name, finding in found.items() if finding.level == "broken"} == set()
    assert {"Python", "torch", "Valkey", "memory", "data folder", "cache folder", "port", "clock"} <= set(
        found
    )
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        found = findings(tmp_path, port)["port"]

    assert (found.level, str(port) in found.found) == ("look", True)


def test_a_damaged_checkpoint_is_broken(tmp_path: Path) -> None:
    publish_tiny(ModelStore(str(tmp_path / "store")))
    sound = findings(tmp_path)["checkpoint"]
    weights = tmp_path / "store/tiny/versions/1/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    found = findings(tmp_path)["checkpoint"]

    assert sound.level == "ok"
    assert found.level == "broken"
    assert "sha256" in found.found
    assert "import it again" in found.advice


def test_a_file_in_place_of_a_folder_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert findings(tmp_path / "file/data")["data folder"].level == "broken"


def test_a_server_that_is_not_ready_is_broken(tmp_path: Path) -> None:
    with ScriptedServer(answer(503, {"detail": "no worker has a warm model"})) as server:
        found = findings(tmp_path, url=server.url)["stack"]

    assert found.level == "broken"
    assert "no worker has a warm model" in found.found


@pytest.mark.parametrize("is_broken", [False, True])
def test_the_command_prints_json_and_its_exit_code(tmp_path: Path, is_broken: bool) -> None:
    if is_broken:
        (tmp_path / "data").write_text("a file")
    command = [sys.executable, "-m", "masan.cli", "doctor", "--json", "--data-dir", str(tmp_path / "data")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    body = json.loads(done.stdout)
    assert (done.returncode, body["ok"]) == ((BROKEN_EXIT_CODE, False) if is_broken else (0, True))
