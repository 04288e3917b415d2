"""The Dockerfile, the compose files and what they mount, checked with the tools that read them."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from service.access.auth import Scope
from service.access.key_ring import KeyRing
from service.settings import ServiceSettings
from tests.tools import run, tool

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
GPU = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CPU = yaml.safe_load((ROOT / "docker-compose.cpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = GPU["services"] | {"worker-cpu": CPU["services"]["worker-cpu"]}


def stages() -> dict[str, str]:
    """Body of each Dockerfile stage by name."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def compose_config(*files: str) -> dict[str, Any]:
    """What compose makes of the files. Docker's plugin if there is one, else the stand-alone program."""
    plugin = (
        ["docker", "compose"]
        if _has_compose_plugin()
        else [tool("docker-compose", "Debian's docker-compose")]
    )
    chosen = [part for file in files for part in ("-f", file)]
    text = run(*plugin, *chosen, "config", MASAN_REDIS_PASSWORD="a1", MASAN_GRAFANA_PASSWORD="b2")
    merged: dict[str, Any] = yaml.safe_load(text)
    return merged


def _has_compose_plugin() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and not subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    )


def test_dockerfile_has_no_lint() -> None:
    run(tool("hadolint", "the dev extra"), "Dockerfile")


def test_base_images_are_pinned() -> None:
    bases = re.findall(r"^FROM (\S+) AS", DOCKERFILE, flags=re.MULTILINE)
    images = {base for base in bases if base not in stages()}
    images |= {service["image"] for service in SERVICES.values() if "build" not in service}

    assert images
    assert all(re.search(r":v?\d+\.\d+", image) for image in images), images


@pytest.mark.parametrize("target", ["service", "worker", "training", "reports"])
def test_image_runs_as_a_fixed_ordinary_user(target: str) -> None:
    body = stages()[target]

    assert re.search(r"^USER 10001:10001$", body, flags=re.MULTILINE)
    assert "HEALTHCHECK" in body


@pytest.mark.parametrize(
    ("target", "own"),
    [("service", "service"), ("worker", "worker"), ("training", "training"), ("reports", "worker,training")],
)
def test_image_installs_its_own_extra_at_pinned_versions(target: str, own: str) -> None:
    body = stages()[f"{target}-build"]

    assert re.search(
        rf"pip install -c constraints.txt ['\"]\.\[{own}(\$\{{EXTRAS:\+,\$\{{EXTRAS\}}\}})?\]['\"]", body
    )


def test_images_bring_what_a_setting_may_ask_for() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extras = {
        target: set(found[1].split(","))
        for target, body in stages().items()
        if (found := re.search(r"^ARG EXTRAS=(\S+)$", body, flags=re.MULTILINE))
    }

    assert extras["service-build"] == {"s3", "telemetry", "parquet"}
    assert extras["worker-build"] == {"s3", "telemetry"}
    assert set().union(*extras.values()) <= known.keys()


def health_command(target: str) -> list[str]:
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", stages()[target], flags=re.MULTILINE)
    assert found
    command: list[str] = json.loads(found[1])
    return command


@pytest.mark.parametrize(
    ("target", "variable", "path"),
    [("service", "MASAN_PORT", "/livez"), ("worker", "MASAN_METRICS_PORT", "/metrics")],
)
def test_health_check_asks_the_port_that_is_set(target: str, variable: str, path: str) -> None:
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    program, *arguments = health_command(target)
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        run(sys.executable, *arguments, **{variable: str(server.server_port)})

    assert (program, asked) == ("python", [path])
    gone = subprocess.run(
        [sys.executable, *arguments], env=os.environ | {variable: "9"}, capture_output=True, check=False
    )
    assert gone.returncode != 0


@pytest.mark.parametrize("name", SERVICES)
def test_caches_lie_where_they_can_be_written(name: str) -> None:
    service = SERVICES[name]
    writable = service["tmpfs"] + [
        volume.split(":")[1] for volume in service.get("volumes", []) if not volume.endswith(":ro")
    ]

    for variable in ("XDG_CACHE_HOME", "CUDA_CACHE_PATH"):
        folder = service.get("environment", {}).get(variable, service["tmpfs"][0])
        assert any(folder == place or folder.startswith(f"{place}/") for place in writable), variable


def test_folders_that_are_mounted_belong_to_the_user_of_the_image() -> None:
    mounted = {
        volume.split(":")[1]
        for service in SERVICES.values()
        if str(service.get("image", "")).startswith("masan-")
        for volume in service.get("volumes", [])
    }

    assert mounted
    assert [folder for folder in mounted if folder not in stages()["base"]] == []


def test_every_file_that_is_copied_reaches_the_builder() -> None:
    allowed = {
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()
        if source != "."
    ]

    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in allowed), source


def test_builder_is_given_nothing_but_named_files() -> None:
    first_rule = next(
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    )

    assert first_rule == "*"


def test_dependencies_install_before_any_source_is_there(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)

    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    run(*pip, str(tmp_path))

    assert list(tmp_path.glob("masan-*.whl"))


def test_compose_accepts_the_file_for_a_gpu() -> None:
    worker = compose_config("docker-compose.yml")["services"]["worker"]

    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"


def test_compose_accepts_the_override_for_a_cpu() -> None:
    services = compose_config("docker-compose.yml", "docker-compose.cpu.yml")["services"]

    assert "deploy" not in services["worker-cpu"]
    assert services.get("worker", {}).get("profiles", ["gpu"]) == ["gpu"]


def test_cpu_worker_is_the_gpu_worker_without_its_gpu() -> None:
    differs = {"deploy", "build", "image", "networks"}
    gpu, cpu = (
        {key: value for key, value in SERVICES[name].items() if key not in differs}
        for name in ("worker", "worker-cpu")
    )

    assert cpu == gpu
    assert SERVICES["worker-cpu"]["build"]["target"] == SERVICES["worker"]["build"]["target"]
    assert "worker" in SERVICES["worker-cpu"]["networks"]["inside"]["aliases"]


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_hardened(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_is_written_down(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN", variable):
            assert str(value).startswith("${") and ":?" in value, variable


def test_only_loopback_ports_are_published_by_default() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert all("127.0.0.1:" in port for port in published), published


def test_redis_keeps_what_it_accepted_and_asks_for_a_password() -> None:
    redis = SERVICES["redis"]
    command = " ".join(redis["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "--requirepass" in command
    assert "ports" not in redis
    assert redis["networks"] == ["inside"]


def test_service_waits_for_keys_and_redis() -> None:
    waits = {name: how["condition"] for name, how in SERVICES["service"]["depends_on"].items()}

    assert waits == {"init": "service_completed_successfully", "redis": "service_healthy"}


def load_init() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compose_init", ROOT / "deploy/compose/init.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_first_start_makes_a_key_that_opens_the_service_and_keeps_only_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"

    key = load_init().make_first_key(file)

    settings = ServiceSettings(model_store_url="models", result_store_url="results", api_keys_file=file)
    found = KeyRing.from_settings(settings).find(key, now=0)
    assert found and found.may(Scope.GENERATE)
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_later_starts_leave_the_keys_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    init = load_init()
    init.make_first_key(file)
    before = file.read_bytes()

    assert init.make_first_key(file) is None
    assert file.read_bytes() == before


def test_signing_key_is_made_before_the_service_that_only_reads_it() -> None:
    init, service = (SERVICES[name] for name in ("init", "service"))
    folder = "/var/lib/masan/keys"

    assert init["environment"]["MASAN_SIGNING_KEY_FILE"] == f"{folder}/signing_key.pem"
    assert service["environment"]["MASAN_SIGNING_KEY_FILE"] == f"{folder}/signing_key.pem"
    assert f"keys:{folder}" in init["volumes"]
    assert f"keys:{folder}:ro" in service["volumes"]
