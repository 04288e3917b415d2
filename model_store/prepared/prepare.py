"""Chooses how a checkpoint is drawn when it is served: on the fastest path that draws the same images."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.generators.experts import ExpertsGenerator, draw_by_class
from model_store.generators.masan import MasanGenerator
from model_store.generators.registry import Generator
from model_store.sampling import micro_batch_for, to_pixels

logger = logging.getLogger(__name__)

EAGER: Final = "eager"
"""The path of a network run as it is. Others name their library and its version, on which bytes depend."""
MAX_LEVELS_OFF: Final = 1
"""By how much an image of another path may differ, in grey levels of 256."""
_CHECKED_IMAGES: Final = 4


@dataclass(frozen=True, slots=True)
class PreparedGenerator:
    """A generator ready to serve, and the path that it draws on. Neither changes afterwards."""

    generator: Generator
    path: str = EAGER


class PreparedExperts:
    """Experts that are prepared, drawing as an `ExpertsGenerator` does."""

    def __init__(
        self, experts: Sequence[Generator], classes: Sequence[Sequence[int]], device: torch.device
    ) -> None:
        self.experts, self.classes, self.device = experts, classes, device
        self.latent_dim = max(expert.latent_dim for expert in experts)
        self.class_count, self.resolution = experts[0].class_count, experts[0].resolution

    def __call__(self, z: Tensor, label: Tensor) -> Tensor:
        """z [N, Z], label [N, K] one-hot -> images [N, 3, R, R] in [-1, 1]."""
        return draw_by_class(self.experts, self.classes, z, label)


class _OffError(Exception):
    """A path that draws other images; the message says by how much."""


def prepare_generator(eager: Generator, device: torch.device, *, passes: int) -> PreparedGenerator:
    """The fastest path that can be had here and that passes the check, `eager` itself if there is none.

    eager: what `load_generator` gives, on `device`. passes: how many run at once on a CPU. The check draws
    fixed latents on both paths. Why a path was not taken is logged in one line.
    """
    if isinstance(eager, ExpertsGenerator):
        return _prepare_experts(eager, device, passes)
    if not isinstance(eager, MasanGenerator):
        return PreparedGenerator(eager)
    reasons = []
    for name, build in _candidates(eager, device, passes):
        try:
            generator, path = build()
            _check(generator, eager, device)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler raises: the images can be drawn without it
            reasons.append(f"{name}: {_first_line(error)}")
            continue
        return PreparedGenerator(generator, path)
    logger.warning("generator runs unprepared", extra={"reason": "; ".join(reasons)})
    return PreparedGenerator(eager)


def _prepare_experts(eager: ExpertsGenerator, device: torch.device, passes: int) -> PreparedGenerator:
    """Each expert on the path that it can have, those that differ named one after another."""
    prepared = [prepare_generator(network, device, passes=passes) for network in eager.networks]
    paths = dict.fromkeys(of_expert.path for of_expert in prepared)
    if list(paths) == [EAGER]:
        return PreparedGenerator(eager)
    networks = [of_expert.generator for of_expert in prepared]
    return PreparedGenerator(PreparedExperts(networks, eager.classes, device), ", ".join(paths))


def _candidates(
    network: MasanGenerator, device: torch.device, passes: int
) -> Iterator[tuple[str, Callable[[], tuple[Generator, str]]]]:
    """Names and constructors, the best first."""
    if device.type == "cpu":
        yield "openvino", lambda: _on_openvino(network, passes)
        return
    if device.type == "cuda":
        yield "compiled cuda graph", lambda: _as_cuda_graph(network, device, is_compiled=True)
        yield "cuda graph", lambda: _as_cuda_graph(network, device, is_compiled=False)


def _on_openvino(network: MasanGenerator, passes: int) -> tuple[Generator, str]:
    from model_store.prepared.openvino_generator import OpenvinoGenerator

    generator = OpenvinoGenerator(network, passes=passes)
    return generator, generator.path


def _as_cuda_graph(network: nn.Module, device: torch.device, *, is_compiled: bool) -> tuple[Generator, str]:
    from model_store.prepared.cuda_graph import CudaGraphGenerator

    generator = CudaGraphGenerator(
        network, device, micro_batch=micro_batch_for(device), is_compiled=is_compiled
    )
    return generator, generator.path


@torch.inference_mode()
def _check(generator: Generator, eager: Generator, device: torch.device) -> None:
    """Raises _OffError unless both draw the same images, within MAX_LEVELS_OFF, and one the same alone."""
    count = min(eager.class_count, _CHECKED_IMAGES)
    z = torch.randn(count, eager.latent_dim, generator=torch.Generator().manual_seed(0)).to(device)
    label = F.one_hot(torch.arange(count), eager.class_count).float().to(device)
    images, expected = generator(z, label), eager(z, label)
    if not bool(images.isfinite().all()):
        raise _OffError("its images are not finite")
    levels = np.abs(to_pixels(images).astype(np.int16) - to_pixels(expected)).max()
    if levels > MAX_LEVELS_OFF:
        raise _OffError(f"its images are off by {levels} grey levels")
    if not torch.equal(generator(z[-1:], label[-1:]), images[-1:]):
        raise _OffError("an image depends on those drawn with it")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
