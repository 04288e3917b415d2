"""A run folder explains itself: config, versions, dataset digest, numbers, sample grids, resumable state."""

import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from training.config import Configuration, TrainConfig
from training.data import Dataset
from training.errors import RunInvalidError


class RunDir:
    """`path/`: config.json, environment.json, stats.jsonl, state.pt (last), best.pt, samples/*.png."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Configuration, dataset: Dataset, device: torch.device) -> "RunDir":
        """Raises RunInvalidError if there is a run already."""
        if (path / "config.json").exists():
            raise RunInvalidError(f"{path} holds a run; resume it with --resume {path} or choose another --out")
        (path / "samples").mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run._write_json("config.json", config.to_dict())
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
        values: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        return values

    def is_diffusion(self) -> bool:
        """Whether the run trains a latent diffusion model."""
        return "denoiser" in self.read_config()

    def environment(self) -> dict[str, Any]:
        """Versions, commit and dataset of the run's start."""
        values: dict[str, Any] = json.loads((self.path / "environment.json").read_text())
        return values

    def save_state(self, state: dict[str, Any], name: str = "state.pt") -> None:
        """Written aside and renamed, so that a crash leaves the previous one."""
        partial = self.path / f".{name}.partial"
        torch.save(state, partial)
        partial.replace(self.path / name)

    def load_state(self, name: str = "state.pt") -> dict[str, Any]:
        """Raises RunInvalidError if the run saved none yet."""
        path = self.path / name
        if not path.exists():
            raise RunInvalidError(f"{self.path} has no {name} yet")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def log(self, **values: Any) -> None:
        """One line of stats.jsonl."""
        with (self.path / "stats.jsonl").open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 1), **values}) + "\n")

    def best_score(self) -> float:
        """Lowest score any snapshot reached; infinity before the first."""
        stats = self.path / "stats.jsonl"
        if not stats.exists():
            return float("inf")
        rows = (json.loads(line) for line in stats.read_text().splitlines())
        return min((row["score"] for row in rows if "score" in row), default=float("inf"))

    def save_samples(self, images: npt.NDArray[np.uint8], images_seen: int, columns: int) -> Path:
        """A grid of images [N, H, W, 3], row by row."""
        return self.save_image(image_grid(images, columns), f"{images_seen:08d}")

    def save_image(self, image: npt.NDArray[np.uint8], name: str) -> Path:
        """A picture [H, W, 3] beside the sample grids."""
        path = self.path / "samples" / f"{name}.png"
        Image.fromarray(image).save(path)
        return path

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        (self.path / name).write_text(json.dumps(values, indent=2, default=str) + "\n")


def image_grid(images: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """[N, H, W, 3] -> one picture with `columns` images a row; N must be a multiple of columns."""
    n, h, w, c = images.shape
    rows = images.reshape(n // columns, columns, h, w, c)
    return rows.transpose(0, 2, 1, 3, 4).reshape(n // columns * h, columns * w, c)


def source_commit() -> str:
    """Commit of the code that runs, `unknown` outside a checkout, with `+` if files were changed."""
    folder = Path(__file__).parent
    try:
        git = ["git", "-C", str(folder)]
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603 -- fixed arguments
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")


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


def _environment(dataset: Dataset, device: torch.device) -> dict[str, Any]:
    return {
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": device_name(device),
        "dataset": {
            "root": dataset.root.name,
            "digest": dataset.digest,
            "classes": list(dataset.classes),
            "images_per_class": dataset.images_per_class(),
            "label_mode": dataset.label_mode,
            "skipped": dict(dataset.skipped),
        },
    }
