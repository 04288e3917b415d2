"""A generator on a GPU in half precision, channels last, its kernels recorded once and replayed."""

import copy
import threading
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.generators.registry import Generator

_WARM_UPS: Final = 3
"""Passes before recording: libraries allocate and choose kernels in the first ones."""


class CudaGraphGenerator:
    """Draws batches of `micro_batch` images at most; shorter ones are padded. Calls take turns.

    Half precision, because its ten bits of fraction hold a grey level, which bfloat16's seven do not; whether
    they do for these weights is for the caller to check. is_compiled: kernels are fused first, which needs
    Triton and a C compiler. Raises RuntimeError and others of torch's where that cannot be had.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, *, micro_batch: int, is_compiled: bool
    ) -> None:
        described: Any = network
        self.latent_dim: int = described.latent_dim
        self.class_count: int = described.class_count
        self.resolution: int = described.resolution
        self.device = device
        self.path = f"cuda-graph float16{' compiled' if is_compiled else ''}"
        self._lock = threading.Lock()
        self._z = torch.zeros(micro_batch, self.latent_dim, device=device)
        self._label = (
            F.one_hot(torch.zeros(micro_batch, dtype=torch.long), self.class_count).to(device).float()
        )
        lean = copy.deepcopy(network).to(memory_format=torch.channels_last)
        run: Any = torch.compile(lean, dynamic=False) if is_compiled else lean
        with torch.cuda.device(device):
            self._record(run)

    def __call__(self, z: Tensor, label: Tensor) -> Tensor:
        """z [N, Z], label [N, K] one-hot, N at most the micro-batch -> images [N, 3, R, R] in [-1, 1]."""
        count = len(z)
        with self._lock, torch.cuda.device(self.device):
            self._z[:count].copy_(z)
            self._label[:count].copy_(label)
            self._graph.replay()
            images = self._images[:count].float().contiguous()
            torch.cuda.current_stream().synchronize()  # the next call, on whatever stream, overwrites them
        return images

    @torch.inference_mode()
    def _record(self, run: Generator) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._run(run)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._images = self._run(run)

    def _run(self, run: Generator) -> Tensor:
        # Casts of weights must be part of the recording, not of a cache that ends with the block.
        with torch.autocast("cuda", torch.float16, cache_enabled=False):
            return run(self._z, self._label)
