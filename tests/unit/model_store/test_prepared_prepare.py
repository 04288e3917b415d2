import logging
import sys
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.generators.registry import Generator
from model_store.prepared import openvino_generator
from model_store.prepared.cuda_graph import CudaGraphGenerator
from model_store.prepared.openvino_generator import OpenvinoGenerator
from model_store.prepared.prepare import EAGER, prepare_generator
from model_store.sampling import MICRO_BATCH, to_pixels
from tests.checkpoints import build_tiny, tiny_config
from tests.tiny_diffusion import build_tiny_ldm

CPU = torch.device("cpu")


@pytest.fixture
def eager() -> Generator:
    return cast("Generator", build_tiny(tiny_config()))


def test_a_cpu_draws_on_openvino(eager: Generator) -> None:
    prepared = prepare_generator(eager, CPU, passes=1)

    assert isinstance(prepared.generator, OpenvinoGenerator)
    assert prepared.path == prepared.generator.path


def test_without_openvino_the_network_itself_draws(
    eager: Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)

    with caplog.at_level(logging.WARNING):
        prepared = prepare_generator(eager, CPU, passes=1)

    assert (prepared.generator, prepared.path) == (eager, EAGER)
    (record,) = caplog.records
    assert "openvino" in record.__dict__["reason"]


def _other_images(change: Any) -> type[OpenvinoGenerator]:
    class Other(OpenvinoGenerator):
        def __call__(self, z: Tensor, label: Tensor) -> Tensor:
            changed: Tensor = change(super().__call__(z, label))
            return changed

    return Other


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda images: images * 0.9, "off by"),
        (lambda images: images / 0, "not finite"),
        (lambda images: images + 1e-4 * (len(images) > 1), "drawn with it"),
    ],
)
def test_a_path_that_draws_other_images_is_not_taken(
    eager: Generator,
    change: Any,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(openvino_generator, "OpenvinoGenerator", _other_images(change))

    with caplog.at_level(logging.WARNING):
        prepared = prepare_generator(eager, CPU, passes=1)

    assert (prepared.generator, prepared.path) == (eager, EAGER)
    assert reason in caplog.records[0].__dict__["reason"]


def test_other_architectures_run_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    diffusion = cast("Generator", build_tiny_ldm())

    prepared = prepare_generator(diffusion, CPU, passes=1)

    assert (prepared.generator, prepared.path) == (diffusion, EAGER)
    assert caplog.records == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_gpu_replays_what_it_recorded(is_compiled: bool) -> None:
    device, count = torch.device("cuda:0"), MICRO_BATCH["cuda"]
    network = build_tiny(tiny_config(resolution=256, base_channels=8)).to(device)
    z = torch.randn(count, 16, device=device)
    label = F.one_hot(torch.arange(count, device=device) % 2, 2).float()

    drawn = CudaGraphGenerator(network, device, micro_batch=count, is_compiled=is_compiled)
    images, expected = to_pixels(drawn(z, label)), to_pixels(network(z, label))

    assert abs(images.astype(int) - expected).max() <= 2
    order = torch.randperm(count, device=device)
    assert (to_pixels(drawn(z[order], label[order])) == images[order.cpu()]).all()
    assert (to_pixels(drawn(z[3:4], label[3:4])) == images[3:4]).all()
