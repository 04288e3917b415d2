"""The OpenVINO path: the same images as the network's, whatever is drawn beside them and wherever."""

import ctypes
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.generators.layers import EMAttention
from model_store.generators.masan import MasanGenerator
from model_store.generators.registry import Generator
from model_store.prepared.openvino_attention import attend
from model_store.prepared.openvino_generator import OpenvinoGenerator
from model_store.prepared.openvino_graph import build_graph
from model_store.prepared.openvino_operations import Operations
from model_store.prepared.openvino_runtime import compile_for_cpu
from tests.checkpoints import build_tiny, tiny_config

SMALL: dict[str, Any] = tiny_config(resolution=64, base_channels=2)
KIND_SHARES = [[0.3, 0.3, 0.4], [0.9, 0.1]]
CONFIGS: dict[str, dict[str, Any]] = {
    "16 px": tiny_config(),
    "cellgan": {**SMALL, "attention_sites": "none"},
    "fusion": SMALL,
    "one group": {**SMALL, "attention_groups": 1},
    "skip": {**SMALL, "attention_sites": "skip"},
    "everywhere": {**SMALL, "attention_sites": "all", "attention_groups": 8, "attention_min_width": 2},
    "shipped": {
        **SMALL,
        "adain_input": "class+z",
        "rgb_skip": True,
        "output_gain": 0.5,
        "noise_resolutions": [4, 16],
        "refine_resolutions": [8, 32, 64],
    },
    "kinds": {**SMALL, "adain_input": "class+z", "noise_resolutions": [4], "kind_shares": KIND_SHARES},
    "kinds, no latent": {**SMALL, "kind_shares": KIND_SHARES},
    "refined by class": {**SMALL, "refine_resolutions": [16, 64]},
    "replicate": {**SMALL, "padding": "replicate", "rgb_skip": True},
    "coarse chroma": {**SMALL, "chroma_resolution": 28},
    "256 px": tiny_config(resolution=256, base_channels=2),
}


def network(config: dict[str, Any]) -> MasanGenerator:
    """Every parameter away from its special starting value."""
    built = build_tiny(config)
    assert isinstance(built, MasanGenerator)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.endswith("outer.weight"):  # as small as it is after training
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
            elif parameter.ndim <= 1 or "attention" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return built


def inputs(described: Generator, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    z = torch.randn(count, described.latent_dim, generator=torch.Generator().manual_seed(seed))
    return z, F.one_hot(torch.arange(count) % described.class_count, described.class_count).float()


@pytest.fixture(scope="module")
def prepared() -> OpenvinoGenerator:
    return OpenvinoGenerator(network(CONFIGS["shipped"]), passes=4)


def test_each_image_is_of_the_kind_that_the_network_chooses() -> None:
    eager = network(tiny_config() | {"kind_shares": KIND_SHARES})
    z, label = inputs(eager, 64)
    z[0, -2:] = 0

    with torch.inference_mode():
        expected = eager(z, label)
    drawn = OpenvinoGenerator(eager, passes=1)(z, label)

    torch.testing.assert_close(drawn, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_images_are_the_networks(name: str) -> None:
    eager = network(CONFIGS[name])
    z, label = inputs(eager, 3)

    with torch.inference_mode():
        expected = eager(z, label)
    drawn = OpenvinoGenerator(eager, passes=1)(z, label)

    assert expected.std() > 0.01
    torch.testing.assert_close(drawn, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(("channels", "groups", "side"), [(16, 8, 8), (12, 1, 5), (8, 8, 4), (6, 2, 3)])
def test_attention_is_the_networks(channels: int, groups: int, side: int) -> None:
    attention = EMAttention(channels, groups).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in attention.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    x = torch.randn(1, channels, side, side, generator=generator)
    make = Operations()
    flat = make.input("x", x.numel())
    model = make.model(attend(make, attention, make.reshape(flat, *x.shape), side), [flat])
    compiled = compile_for_cpu(model, {"INFERENCE_PRECISION_HINT": "f32"})

    attended = torch.from_numpy(compiled([x.flatten(1).numpy()])[0])

    torch.testing.assert_close(attended, attention(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fusion", "shipped"])
def test_a_graph_has_fixed_shapes(name: str) -> None:
    eager = network(CONFIGS[name])
    graph = build_graph(eager)

    assert [list(given.get_shape()) for given in graph.inputs] == [
        [1, eager.latent_dim],
        [1, eager.class_count],
    ]
    assert [list(made.get_shape()) for made in graph.outputs] == [[1, 3, 64, 64]]


def test_it_tells_what_sampling_needs(prepared: OpenvinoGenerator) -> None:
    eager = network(CONFIGS["shipped"])

    assert isinstance(prepared, Generator)
    assert (prepared.latent_dim, prepared.class_count, prepared.resolution) == (
        eager.latent_dim,
        eager.class_count,
        eager.resolution,
    )
    assert prepared.path.startswith("openvino 20")


def test_bytes_depend_neither_on_neighbours_nor_on_place(prepared: OpenvinoGenerator) -> None:
    z, label = inputs(prepared, 5)
    together = prepared(z, label)
    order = [4, 1, 3, 0, 2]

    assert torch.equal(prepared(z[order], label[order]), together[order])
    for i in range(5):
        assert torch.equal(prepared(z[i : i + 1], label[i : i + 1])[0], together[i])


def test_bytes_do_not_depend_on_what_runs_beside_them(prepared: OpenvinoGenerator) -> None:
    z, label = inputs(prepared, 24)
    alone = prepared(z, label)

    with ThreadPoolExecutor(6) as pool:  # more than there are streams
        drawn = list(pool.map(lambda i: prepared(z[i : i + 1], label[i : i + 1]), range(24)))

    assert torch.equal(torch.cat(drawn), alone)


@pytest.mark.parametrize("passes", [1, 2])
def test_bytes_do_not_depend_on_how_many_passes_run_at_once(passes: int, prepared: OpenvinoGenerator) -> None:
    z, label = inputs(prepared, 2)

    again = OpenvinoGenerator(network(CONFIGS["shipped"]), passes=passes)

    assert torch.equal(again(z, label), prepared(z, label))


IN_ANOTHER_PROCESS = """
import hashlib, sys
from tests.unit.model_store.test_prepared_openvino import CONFIGS, OpenvinoGenerator, inputs, network
prepared = OpenvinoGenerator(network(CONFIGS["shipped"]), passes=2)
print(hashlib.sha256(prepared(*inputs(prepared, 3)).numpy().tobytes()).hexdigest())
print(*[name for name in sys.modules if "telemetry" in name])
"""


def test_another_process_draws_the_same_and_nothing_reports_home(
    prepared: OpenvinoGenerator, tmp_path: Path
) -> None:
    here = hashlib.sha256(prepared(*inputs(prepared, 3)).numpy().tobytes()).hexdigest()

    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        cwd=Path(__file__).parents[3],
        env={"HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": "benchmarks"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == [here, ""]
    assert list(tmp_path.iterdir()) == []


class SignalStack(ctypes.Structure):
    """stack_t, see sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the signal stack through Linux's C library")
def test_signals_are_handled_where_they_were_before() -> None:
    def signal_stack() -> tuple[int | None, int, int]:
        stack = SignalStack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
        return stack.address, stack.flags, stack.size

    before = signal_stack()

    generator = OpenvinoGenerator(network(SMALL), passes=1)
    generator(*inputs(generator, 1))
    assert signal_stack() == before
    del generator

    assert signal_stack() == before


FIRST_USED_BY_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
from model_store.prepared.openvino_runtime import load_openvino
together = threading.Barrier(8)
with ThreadPoolExecutor(8) as pool:
    print(len(set(pool.map(lambda _: (together.wait(), load_openvino())[1].__version__, range(8)))))
"""


def test_threads_may_be_the_first_to_use_it_together() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USED_BY_THREADS],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )

    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr
