"""A MASAN generator on OpenVINO: images one by one on a CPU, several passes at once, each on one thread."""

import threading
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from model_store.generators.masan import MasanGenerator
from model_store.prepared.openvino_graph import build_graph
from model_store.prepared.openvino_runtime import compile_for_cpu, load_openvino


class OpenvinoGenerator:
    """Draws what `network` draws, within rounding.

    passes: how many run at once at most; a call beyond them waits. An image's bytes depend neither on it nor
    on the other images: a pass is of one image and on one thread. Raises ImportError where OpenVINO is not
    installed, RuntimeError where it cannot compile.
    """

    device: Final = torch.device("cpu")

    def __init__(self, network: MasanGenerator, *, passes: int) -> None:
        self.latent_dim = network.latent_dim
        self.class_count = network.class_count
        self.resolution = network.resolution
        self.path = f"openvino {load_openvino().__version__.partition('-')[0]}"
        settings = {
            "NUM_STREAMS": passes,
            "INFERENCE_NUM_THREADS": passes,
            "INFERENCE_PRECISION_HINT": "f32",  # else half precision where the CPU has it
            "ENABLE_CPU_PINNING": False,  # workers of one machine would be pinned to the same cores
        }
        self._compiled: Any = compile_for_cpu(build_graph(network), settings)
        self._of_thread = threading.local()

    def __call__(self, z: Tensor, label: Tensor) -> Tensor:
        """z [N, Z], label [N, K] one-hot -> images [N, 3, R, R] in [-1, 1]."""
        request = self._request()
        latents, labels = (np.ascontiguousarray(given.numpy(), dtype=np.float32) for given in (z, label))
        images = [
            request.infer([latents[i : i + 1], labels[i : i + 1]], share_inputs=True)[0]
            for i in range(len(latents))
        ]
        return torch.from_numpy(images[0] if len(images) == 1 else np.concatenate(images))

    def _request(self) -> Any:
        """One for each thread, as a request runs one pass at a time."""
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._compiled.create_infer_request()
        return request
