"""The systemd units: read without complaint, hardened, in agreement with settings and commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings
from typer.main import get_command

from masan.cli import app
from masan.report_settings import ReportWorkerSettings
from masan.valkey_server import ValkeyServer, find_valkey
from masan.webhook_settings import WebhookSettings
from service.settings import ServiceSettings
from tests.tools import ROOT, run, tool
from worker.beating_worker import STOP_LIMIT_S
from worker.settings import WorkerSettings

FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
SETTINGS: dict[str, tuple[type[BaseSettings], ...]] = {
    "masan-service": (ServiceSettings,),
    "masan-worker@": (WorkerSettings,),
    "masan-reports": (ReportWorkerSettings, WebhookSettings),
    "masan-valkey": (),
}
OF_LIBRARIES = {"CUDA_VISIBLE_DEVICES", "CUDA_CACHE_PATH", "XDG_CACHE_HOME"}
EXPOSURE_LIMIT = 20
"""Of 100, as `systemd-analyze security` adds up; a unit that says nothing has 96."""

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def values(unit: Path, name: str) -> list[str]:
    """What a directive is given, each time."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), flags=re.MULTILINE)


def environment(unit: Path) -> dict[str, str]:
    """The unit's variables after those of the shared file, for the instance 0."""
    lines = (FOLDER / "masan.env").read_text().splitlines() if values(unit, "EnvironmentFile") else []
    told = [line for line in lines if line and not line.startswith("#")] + values(unit, "Environment")
    return dict(line.replace("%i", "0").replace("%l", "lab").split("=", 1) for line in told)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The units with programs that this machine has in place of those that a server will have."""
    programs = {
        "/opt/masan/venv/bin/": f"{Path(sys.executable).parent}/",
        "/opt/masan/deploy/": f"{ROOT}/deploy/",
        "/usr/bin/valkey-server": str(find_valkey()),
    }
    for path in (*UNITS, FOLDER / "masan.target"):
        text = path.read_text()
        for there, ours in programs.items():
            text = text.replace(there, ours)
        (tmp_path / path.name).write_text(text)
    return tmp_path


def test_systemd_reads_every_unit_without_a_word(here: Path) -> None:
    analyze = tool("systemd-analyze", "Debian's systemd")
    instance = here / "masan-worker@0.service"
    instance.symlink_to(here / "masan-worker@.service")
    files = [path for path in here.iterdir() if "@." not in path.name]

    said = run(analyze, "verify", "--man=no", "--recursive-errors=no", *files)

    assert [line for line in said.splitlines() if "masan" in line] == []


def test_a_misspelt_directive_is_found(here: Path) -> None:
    analyze = tool("systemd-analyze", "Debian's systemd")
    unit = here / "masan-service.service"
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))

    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)

    assert "ProtectHouse" in done.stderr


@each_unit
def test_unit_is_hardened(unit: Path, here: Path) -> None:
    analyze = tool("systemd-analyze", "Debian's systemd")

    run(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", here / unit.name)


@each_unit
def test_variables_are_ones_that_the_process_takes(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = SETTINGS[unit.stem]
    told = environment(unit)
    every = {
        f"MASAN_{name}".upper() for all_ in SETTINGS.values() for kind in all_ for name in kind.model_fields
    }

    assert told.keys() <= every | OF_LIBRARIES
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    for kind in kinds:
        assert kind()


@each_unit
def test_command_exists(unit: Path) -> None:
    [line] = values(unit, "ExecStart")
    program, *arguments = shlex.split(line)

    if program.endswith("/masan"):
        run(Path(sys.executable).parent / "masan", arguments[0], "--help")
        assert arguments[0] in get_command(app).commands  # type: ignore[attr-defined]
    else:
        assert arguments == ["/etc/masan/valkey.conf"]


@each_unit
def test_unit_comes_back_by_itself_and_is_given_time_to_stop(unit: Path) -> None:
    assert values(unit, "Restart") == ["always"]
    assert float(values(unit, "TimeoutStopSec")[0]) >= STOP_LIMIT_S + 10
    assert values(unit, "User") == values(unit, "Group") == ["masan"]
    if SETTINGS[unit.stem]:
        assert values(unit, "RestartPreventExitStatus") == ["2"], "a setting that cannot be used"


def test_folders_of_the_stores_are_made_for_all_who_use_them() -> None:
    for unit in UNITS:
        made = {f"/var/lib/{name}" for line in values(unit, "StateDirectory") for name in line.split()}
        told = environment(unit)
        used = {told[name] for name in ("MASAN_MODEL_STORE_URL", "MASAN_RESULT_STORE_URL") if name in told}
        assert used <= made, unit.name


def test_target_wants_one_of_each() -> None:
    [wanted] = values(FOLDER / "masan.target", "Wants")

    assert {name.replace("@0", "@") for name in wanted.split()} == {unit.name for unit in UNITS}


def test_valkey_starts_with_the_configuration_and_keeps_what_it_accepts(tmp_path: Path) -> None:
    from redis import Redis

    text = (FOLDER / "valkey.conf").read_text()
    embedded = ValkeyServer(tmp_path)
    for folder in ("run", "data"):
        (tmp_path / folder).mkdir()
    common = {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction", 'save ""'}
    written = embedded._write_config().read_text()
    assert common <= set(text.splitlines()) and common <= set(written.splitlines())

    own = text.replace("/run/masan-valkey", str(tmp_path / "run")).replace(
        "/var/lib/masan-valkey", str(tmp_path / "data")
    )
    (tmp_path / "valkey.conf").write_text(own)
    server = subprocess.Popen([find_valkey(), tmp_path / "valkey.conf"], stdout=subprocess.DEVNULL)
    socket = tmp_path / "run" / "valkey.sock"
    try:
        while not socket.exists():
            assert server.poll() is None
        with Redis.from_url(f"unix://{socket}") as redis:
            assert redis.config_get("appendonly") == {"appendonly": "yes"}
            assert redis.set("accepted", "1")
    finally:
        server.terminate()
        server.wait(10)
    assert socket.exists() is False
    assert list((tmp_path / "data" / "appendonlydir").glob("*.aof"))
