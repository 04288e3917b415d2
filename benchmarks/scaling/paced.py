"""The stand-in for a generator: pictures drawn beforehand, handed out at a steady pace.

It takes the place of the network alone. Everything around it is the worker's own: queue, ledger,
micro-batches, gate, encoding, shards. The functions here run in processes that were forked from one which has
imported torch, so that sixteen workers start in seconds and share its pages.
"""

import os
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from model_store.image_id import ImageId
from model_store.quality.reference_set import load_reference_set
from model_store.sampling import make_reproducible, micro_batch_for, sample_images
from model_store.store import ModelStore
from model_store.weights import load_generator
from scaling.recording import Burst, recorded
from worker import generator_cache
from worker.contract.messages import GateLevel
from worker.gate import Gate, GateReference
from worker.logs import configure_logging
from worker.process import WorkerProcess, run_worker
from worker.settings import WorkerSettings

PICTURES = 4
"""Of each class; which of them an image is follows from its latent."""
GATED_PX = 64
_MAX_DRAWN = 200


class PacedGenerator(nn.Module):
    """Returns pictures, no sooner than `images_per_second` allow; 0: at once.

    like: the generator whose place it takes. pictures: float32 [K, P, 3, H, W] in [-1, 1].
    """

    def __init__(self, like: Any, pictures: npt.NDArray[np.float32], images_per_second: float) -> None:
        super().__init__()
        self.latent_dim, self.class_count = like.latent_dim, like.class_count
        self.resolution = pictures.shape[-1]
        self._pictures = pictures
        self._seconds = 1 / images_per_second if images_per_second else 0.0
        self.device_mark = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """z [N, Z], label [N, K] one-hot -> images [N, 3, H, W] in [-1, 1]."""
        ends_at = time.monotonic() + len(z) * self._seconds
        which = (z[:, 0].abs() * 1e6).long() % self._pictures.shape[1]
        images = self._pictures[label.argmax(dim=1).numpy(), which.numpy()]
        time.sleep(max(0.0, ends_at - time.monotonic()))
        return torch.from_numpy(images)


def draw_pictures(store_url: str, model: str, sizes_px: list[int], folder: str) -> None:
    """Save what the real generator draws, in each of the sizes, as float32 arrays `pictures-{size}.npy`.

    In sizes from GATED_PX on the gate accepts all of them.
    """
    make_reproducible()
    device = torch.device("cpu")
    store = ModelStore(store_url)
    checkpoint = store.resolve(model)
    generator = load_generator(store, checkpoint, device)
    gate = Gate(GateLevel.DEFAULT, GateReference.of(load_reference_set(store, checkpoint)))
    rows: dict[int, list[list[npt.NDArray[np.uint8]]]] = {size_px: [] for size_px in sizes_px}
    for label, slug in enumerate(checkpoint.manifest.classes):
        accepted: list[dict[int, npt.NDArray[np.uint8]]] = []
        ids = [ImageId(checkpoint.digest[:16], slug, 1, index) for index in range(_MAX_DRAWN)]
        drawn = sample_images(
            generator, checkpoint.digest, ids, [label] * len(ids), micro_batch=micro_batch_for(device)
        )
        for pixels in chain.from_iterable(drawn):
            resized = {size_px: _resized(pixels, size_px) for size_px in sizes_px}
            judged = [gate.judge(p, slug, is_finite=True) for size, p in resized.items() if size >= GATED_PX]
            if all(verdict.reason is None for verdict in judged):
                accepted.append(resized)
            if len(accepted) == PICTURES:
                break
        else:
            raise RuntimeError(f"the gate refuses nearly all {slug} images of {sizes_px} px")
        for size_px, row in rows.items():
            row.append([resized[size_px] for resized in accepted])
    for size_px, row in rows.items():
        images = np.array(row, np.float32) / 127.5 - 1  # [K, P, H, W, 3]
        np.save(
            Path(folder) / f"pictures-{size_px}.npy", np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3))
        )


def _resized(pixels: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px)))


def work(settings: dict[str, Any], pictures: str, images_per_second: float, log: str) -> None:
    """What `python -m worker` does, with the stand-in, until it is told to stop."""
    _write_to(log)
    configure_logging("WARNING")
    _stand_in(pictures, images_per_second)
    sys.exit(run_worker(WorkerSettings(**settings)))


def record_burst(settings: dict[str, Any], pictures: str, micro_batch: int, log: str, answers: Any) -> None:
    """Empty the queue with a worker that waits for no generator; puts into `answers` what it sent to Redis.

    micro_batch: images of one forward pass, and so of one look at the job's state.
    """
    _write_to(log)
    configure_logging("WARNING")
    _stand_in(pictures, 0)
    with patch("worker.sampler.micro_batch_for", lambda _device: micro_batch):
        process = WorkerProcess(WorkerSettings(**settings))
    with recorded() as bursts:
        process.run(burst=True)
    answers.put([(burst.data, burst.commands) for burst in _between_first_and_last_look(bursts)])


def _between_first_and_last_look(bursts: list[Burst]) -> list[Burst]:
    """Without the worker's start and end: from its first look at the queue to before its last, in vain."""
    looks = [number for number, burst in enumerate(bursts) if b"LMOVE" in burst.data]
    return bursts[looks[0] : looks[-1]]


def _stand_in(pictures: str, images_per_second: float) -> None:
    bank = np.load(pictures, mmap_mode="r")
    names = vars(generator_cache)
    load = names["load_generator"]

    def load_paced(*args: Any, **kwargs: Any) -> Any:
        return PacedGenerator(load(*args, **kwargs), bank, images_per_second)

    names["load_generator"] = load_paced


def _write_to(log: str) -> None:
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
