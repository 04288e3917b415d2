"""How long work takes on this device: FLOPs that are counted, and two short measurements that are kept."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from model_store.quality.extractors import INPUT_SIZE_PX, FeatureExtractor
from training.config import RunConfig, TrainConfig
from training.cost import CPU_SHARE, GPU_SHARE, measure_cost
from training.diffusion.config import DiffusionConfig
from training.diffusion.cost import cost as diffusion_cost
from training.hardware import fastest_on
from training.reproduce.classifiers import build_classifier
from training.run_dir import device_name

STEP_OVERHEAD_S: Final = 0.02
"""What a training step takes however small its networks: measured with preset `smoke` on one CPU thread."""
SETUP_S: Final = 1.0
"""Of a unit: images from the cache, networks, a run folder."""
INCEPTION_SHARE: Final = 4.0
"""Cost of two passes of Inception over that of both EfficientNets: 2 x 11.4 to 5.7 GFLOP."""
_TIMED_IMAGES: Final = 4


class Rates:
    """Seconds of a unit's parts. What was measured is kept in `path`, so that a plan is the same next time.

    class_count: of the dataset.
    """

    def __init__(self, device: str, class_count: int, path: Path | None = None) -> None:
        self.device = torch.device(device)
        self.class_count = class_count
        self._path = path
        self._kept: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}

    def train_gan(self, config: TrainConfig) -> float:
        """A whole training."""
        images = config.run.total_kimg * 1000
        flops = images * self._gan_flops(config)["step"]
        return SETUP_S + flops / self._flop_rate() + images / config.optimizer.batch * STEP_OVERHEAD_S

    def train_diffusion(self, config: DiffusionConfig, images: int) -> float:
        """Both stages, and encoding `images` in their symmetries between them."""
        flops = self._diffusion_flops(config)
        first, second = config.autoencoder.total_kimg * 1000, config.run.total_kimg * 1000
        symmetries = (4 if config.data.flips else 1) * (2 if config.data.rot90 else 1)
        total = first * flops["autoencoder_step_flops"] + second * flops["denoiser_step_flops"]
        total += images * symmetries * flops["encode_flops"]
        steps = first / config.autoencoder.batch + second / config.denoiser.batch
        return SETUP_S + total / self._flop_rate() + steps * STEP_OVERHEAD_S

    def draw(self, config: TrainConfig | DiffusionConfig, images: int) -> float:
        """Generated images of a trained generator."""
        if isinstance(config, DiffusionConfig):
            flops = self._diffusion_flops(config)["sample_flops"]
        else:
            flops = self._gan_flops(config)["generate"]
        return images * flops / self._flop_rate()

    def draw_by(self, key: str, count_flops: Callable[[], float], images: int) -> float:
        """Images of a generator that counts its own FLOPs of one; counted once for that key."""
        return images * self._flops(key, lambda: {"generate": count_flops()})["generate"] / self._flop_rate()

    def features(self, images: int, *, inception: bool = False) -> float:
        """Features of images by both EfficientNets; with `inception` also by Inception, fed in both ways."""
        seconds = sum(self._extractor_s(variant) for variant in (0, 2))
        return images * seconds * (1 + INCEPTION_SHARE * inception)

    def classify(self, name: str, image_size: int, images: int, steps: int) -> float:
        """A classifier shown so many images in so many steps."""
        flops = self._flops(
            f"classifier/{name}/{image_size}/{self.class_count}",
            lambda: {"forward": classifier_flops(name, image_size, self.class_count)},
        )["forward"]
        return SETUP_S + images * 3 * flops / self._flop_rate() + steps * STEP_OVERHEAD_S

    def _gan_flops(self, config: TrainConfig) -> dict[str, float]:
        """Per image, of a training step and of drawing; the same for all runs of equal networks."""
        plain = replace(
            config,
            run=RunConfig(resolution=config.run.resolution, precision="fp32", memory_format="contiguous"),
        )
        parts = plain.to_dict()
        name = json.dumps([parts[p] for p in ("generator", "discriminator", "losses")], sort_keys=True)

        def count() -> dict[str, float]:
            cost = measure_cost(plain, self.class_count)
            return {"step": cost.step_flops, "generate": cost.generator_flops}

        key = f"gan/{self.class_count}/{plain.run.resolution}/{plain.optimizer.batch}"
        return self._flops(f"{key}/{name}", count)

    def _diffusion_flops(self, config: DiffusionConfig) -> dict[str, float]:
        parts = config.to_dict()
        networks = [config.run.resolution, parts["autoencoder"]["channels"], parts["denoiser"]["channels"]]
        name = json.dumps([*networks, parts["sampling"], config.denoiser.layers])
        return self._flops(
            f"diffusion/{self.class_count}/{name}",
            lambda: {k: float(v) for k, v in diffusion_cost(config, self.class_count).items()},
        )

    def _flop_rate(self) -> float:
        """FLOP/s of whole training steps, from what a convolution reaches."""
        share = GPU_SHARE if self.device.type == "cuda" else CPU_SHARE
        return share * self._measured(
            "convolution_flops_per_second", lambda: fastest_on(self.device).flops_per_second
        )

    def _extractor_s(self, variant: int) -> float:
        return self._measured(f"efficientnet_lite{variant}_s", lambda: self._time_extractor(variant))

    def _time_extractor(self, variant: int) -> float:
        """Seconds of one image."""
        extractor = FeatureExtractor(variant, device=self.device)
        images = np.zeros((_TIMED_IMAGES, INPUT_SIZE_PX, INPUT_SIZE_PX, 3), dtype=np.uint8)
        extractor.features(images)
        started = time.perf_counter()
        extractor.features(images)
        return (time.perf_counter() - started) / _TIMED_IMAGES

    def _measured(self, name: str, measure_it: Callable[[], float]) -> float:
        key = f"{device_name(self.device)}: {name}"
        if key not in self._kept:
            self._keep(key, measure_it())
        return float(self._kept[key])

    def _flops(self, key: str, count: Callable[[], dict[str, float]]) -> dict[str, float]:
        if key not in self._kept:
            self._keep(key, count())
        flops: dict[str, float] = self._kept[key]
        return flops

    def _keep(self, key: str, value: Any) -> None:
        self._kept[key] = value
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self._kept, indent=1) + "\n")
            partial.replace(self._path)


def classifier_flops(name: str, image_size: int, class_count: int) -> float:
    """Of one image's forward, a multiply-add being two."""
    with torch.device("meta"), torch.no_grad():
        network = build_classifier(name, class_count).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, image_size, image_size, device="meta"))
    return float(counter.get_total_flops())
