"""How fast a generator draws: as trained, folded, and prepared as it is served.

    python benchmarks/generator.py                            # the published network at full width
    python benchmarks/generator.py --model builtin            # the checkpoint that ships
    python benchmarks/generator.py --device cuda

`plain` is the network as its authors wrote it, in training mode with torch's spectral-norm hooks, eager
float32. `training` is what our loop runs: the same network in its exact rewrite, all weights normalised in
every pass, as the hooks do. `folded` is that on folded weights. `prepared` is what a worker serves with. All
draw the same latents, in turns, on one thread each; a variant's best round counts. On a CPU seconds are of
CPU, which what else runs on the machine hardly moves; the last line, passes at once, is by the clock.

FLOP are those each variant executes, and `of matmul` its share of the rate at which this machine multiplies
matrices on one thread in the same run.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from hardware import hardware_line
from model_store.builtin import builtin_store
from model_store.generators.experts import ExpertsGenerator
from model_store.generators.layers import EMAttention, UpBlock, use_transposed_convolutions
from model_store.generators.masan import MasanGenerator
from model_store.generators.registry import Generator, build_generator
from model_store.prepared.prepare import PreparedGenerator, prepare_generator
from model_store.sampling import make_reproducible, to_pixels
from model_store.weights import decode_weights
from train_throughput import PlainAttention, PlainUpBlock, _replace
from training.spectral_norm import SpectralNorm, spectral_weights
from worker.device import choose_device
from worker.settings import usable_cores

Draw = Callable[[Tensor, Tensor], Tensor]
FULL_WIDTH: dict[str, Any] = {"class_count": 4}
MATRIX_SIDE = 1536


def full_width() -> MasanGenerator:
    """The published network with weights of a trained one's size: normalised, images of full contrast."""
    torch.manual_seed(0)
    network = cast("MasanGenerator", build_generator("masan", FULL_WIDTH))
    normalize = SpectralNorm(network, spectral_weights(network, exclude=("attention",)))
    with torch.no_grad():
        network.load_state_dict(normalize(dict(network.named_parameters()), iterations=50))
        for name, parameter in network.named_parameters():
            if "attention" in name:
                parameter.normal_(std=0.3)
        spread = _last_activation(network).std()
        network.to_rgb.weight.mul_(1 / spread)
    return network.eval().requires_grad_(False)


def _last_activation(network: MasanGenerator) -> Tensor:
    kept: list[Tensor] = []
    hook = network.to_rgb.register_forward_hook(lambda _module, _given, output: kept.append(output))
    network(torch.randn(2, network.latent_dim), torch.eye(network.class_count)[:2])
    hook.remove()
    return kept[0]


def shipped() -> MasanGenerator:
    """The newest built-in checkpoint's, its youngest expert's if it has several."""
    store = builtin_store()
    name = store.names()[0]
    checkpoint = store.resolve(f"{name}@{store.versions(name)[-1]}")
    content = store.read_file(checkpoint, checkpoint.manifest.weights.path)
    network = decode_weights(content, checkpoint.manifest, checkpoint.folder)
    if isinstance(network, ExpertsGenerator):
        network = network.networks[-1]
    return cast("MasanGenerator", network)


def copied(network: MasanGenerator) -> MasanGenerator:
    """Without what was derived for serving."""
    made = cast("MasanGenerator", build_generator("masan", network.config.__dict__))
    made.load_state_dict(network.state_dict())
    return made.to(next(network.parameters()).device).eval()


def plain(network: MasanGenerator) -> nn.Module:
    """With torch's hooks. The weights are of unit norm already, so that the images stay about the same."""
    made: nn.Module = copied(network)
    for name in spectral_weights(made, exclude=("attention",)):
        layer = made.get_submodule(name.rpartition(".")[0])
        torch.nn.utils.parametrizations.spectral_norm(layer, eps=1e-4)
    _replace(made, UpBlock, PlainUpBlock)
    _replace(made, EMAttention, PlainAttention)
    return made.train()


def training(network: MasanGenerator) -> Draw:
    """As the training loop runs it."""
    made = use_transposed_convolutions(copied(network))
    parameters = dict(made.named_parameters())
    normalize = SpectralNorm(made, spectral_weights(made, exclude=("attention",)))
    normalize.to(next(made.parameters()).device)

    def draw(z: Tensor, label: Tensor) -> Tensor:
        images: Tensor = functional_call(made, normalize(parameters), (z, label))
        return images

    return draw


def inputs(described: Generator, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    z = torch.randn(count, described.latent_dim, generator=torch.Generator().manual_seed(count))
    label = F.one_hot(torch.arange(count) % described.class_count, described.class_count).float()
    return z.to(device), label.to(device)


def seconds_of(draw: Draw, given: tuple[Tensor, Tensor]) -> float:
    """Of CPU on a CPU, by the clock on a GPU."""
    on_gpu = given[0].is_cuda
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    started = clock()
    with torch.inference_mode():
        draw(*given)
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def network_flop(draw: Draw, given: tuple[Tensor, Tensor]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        draw(*given)
    return float(counter.get_total_flops()) / len(given[0])


def graph_flop(network: MasanGenerator) -> float:
    """Of the OpenVINO graph: two for each product in convolutions and matrix products."""
    from model_store.prepared.openvino_graph import build_graph

    total = 0.0
    for operation in build_graph(network).get_ops():
        kind = operation.get_type_name()
        if kind not in {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}:
            continue
        given, weight = (list(operation.input(i).get_shape()) for i in (0, 1))
        made = list(operation.output(0).get_shape())
        if kind == "MatMul":
            total += 2 * np.prod(made) * given[-1]
        elif kind == "ConvolutionBackpropData":
            total += 2 * np.prod(given[2:]) * np.prod(weight)
        else:
            total += 2 * np.prod(made[2:]) * np.prod(weight)
    return total


def matmul_rate(device: torch.device, rounds: int) -> float:
    """FLOP/s of square float32 matrices, the best of the rounds."""
    matrices = torch.randn(2, MATRIX_SIDE, MATRIX_SIDE, device=device).unbind(0)
    best = min(seconds_of(torch.matmul, matrices) for _ in range(rounds + 1))  # type: ignore[arg-type]
    return 2 * MATRIX_SIDE**3 / best


def images_per_second_at_once(generator: Generator, threads: int, seconds: float = 3.0) -> float:
    """By the clock, `threads` callers of one image each."""
    given = inputs(generator, 1, torch.device("cpu"))
    end = time.perf_counter() + seconds

    def repeat(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            generator(*given)
            done += 1
        return done

    with torch.inference_mode(), ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        total = sum(pool.map(repeat, range(threads)))
        return total / (time.perf_counter() - started)


def most_levels_off(draw: Draw, reference: Draw, given: tuple[Tensor, Tensor]) -> int:
    with torch.inference_mode():
        first, second = to_pixels(draw(*given)), to_pixels(reference(*given))
    return int(np.abs(first.astype(np.int16) - second).max())


def best_seconds(
    variants: dict[str, Draw], network: MasanGenerator, batches: Sequence[int], rounds: int, budget_s: float
) -> dict[tuple[str, int], float]:
    """Of a batch, in each variant's best round; the last rounds are left out once the time is spent."""
    best: dict[tuple[str, int], float] = {}
    end = time.perf_counter() + budget_s
    device = next(network.parameters()).device
    for round_index in range(rounds + 1):  # the first pays for memory and kernels
        for batch in batches:
            if round_index and time.perf_counter() > end:
                return best
            given = inputs(network, batch, device)
            for name, draw in variants.items():
                took = seconds_of(draw, given)
                best[name, batch] = min(best.get((name, batch), took), took)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["full", "builtin"], default="full")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="no round is begun after them")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    arguments = parser.parse_args()
    make_reproducible()
    device = choose_device(arguments.device)
    network = (shipped() if arguments.model == "builtin" else full_width()).to(device)
    folded = use_transposed_convolutions(copied(network))
    started = time.perf_counter()
    prepared: PreparedGenerator = prepare_generator(folded, device, passes=usable_cores())
    prepare_s = time.perf_counter() - started
    variants: dict[str, Draw] = {
        "plain": plain(network),
        "training": training(network),
        "folded": folded,
        "prepared": prepared.generator,
    }
    one = inputs(network, 1, device)
    flop = {name: network_flop(draw, one) for name, draw in variants.items() if name != "prepared"}
    flop["prepared"] = flop["folded"]
    if device.type == "cpu":
        with suppress(ImportError):
            flop["prepared"] = graph_flop(folded)
    matmul = matmul_rate(device, arguments.rounds)
    best = best_seconds(variants, network, arguments.batches, arguments.rounds, arguments.seconds)
    rates = {key: key[1] / seconds for key, seconds in best.items()}
    off = most_levels_off(prepared.generator, folded, inputs(network, 4, device))
    result: dict[str, Any] = {
        "hardware": hardware_line(),
        "model": arguments.model,
        "prepared_path": prepared.path,
        "prepare_seconds": round(prepare_s, 2),
        "most_levels_off": off,
        "matmul_gflops": round(matmul / 1e9, 1),
        "images_per_second": {f"{name} {batch}": round(rate, 2) for (name, batch), rate in rates.items()},
    }
    print(result["hardware"])
    print(f"{arguments.model}, {prepared.path}, ready in {prepare_s:.1f} s, at most {off} grey levels off")
    print(f"matrix products: {matmul / 1e9:.0f} GFLOP/s on one thread")
    print(
        "| variant | GFLOP | " + " | ".join(f"images/s at {b}" for b in arguments.batches) + " | of matmul |"
    )
    print("| --- | --- | " + "--- | " * len(arguments.batches) + "--- |")
    for name in variants:
        speeds = [rates[name, batch] for batch in arguments.batches]
        share = max(speeds) * flop[name] / matmul
        cells = " | ".join(f"{speed:.1f}" for speed in speeds)
        print(f"| {name} | {flop[name] / 1e9:.2f} | {cells} | {share:.0%} |")
    for name in ("plain", "training", "folded"):
        ratios = ", ".join(f"{rates['prepared', b] / rates[name, b]:.1f} at {b}" for b in arguments.batches)
        print(f"prepared / {name}: {ratios}")
    if device.type == "cpu":
        at_once = {n: images_per_second_at_once(prepared.generator, n) for n in (1, usable_cores())}
        result["passes_at_once"] = {n: round(rate, 2) for n, rate in at_once.items()}
        print(
            "prepared, by the clock: "
            + ", ".join(f"{r:.1f} images/s, {n} at once" for n, r in at_once.items())
        )
    if arguments.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
