"""A MASAN generator as an OpenVINO graph: one image a pass, every exact rewrite made, all layers constant.

Built from OpenVINO's operations directly, in a fraction of a second, where tracing the network takes many.
`Node` stands for OpenVINO's type of that name. All maps are [1, C, H, W], float32.
"""

from itertools import chain
from typing import Any, Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.generators.kinds import CHOICE_NUMBERS, SHORTEST, KindChoice
from model_store.generators.layers import (
    INSTANCE_NORM_EPS,
    LRELU_SLOPE,
    ChromaLimit,
    EMAttention,
    RefineBlock,
    SkipGlobalContext,
    UpBlock,
    upsampling_kernel,
)
from model_store.generators.masan import MasanGenerator
from model_store.prepared.openvino_attention import attend
from model_store.prepared.openvino_operations import Node, Operations

HEIGHT_AND_WIDTH: Final = (2, 3)


@torch.no_grad()
def build_graph(generator: MasanGenerator) -> Any:
    """An `openvino.Model`: z [1, Z], label [1, K] one-hot -> image [1, 3, R, R]. Raises ImportError."""
    return _GraphBuilder(generator).build()


class _GraphBuilder:
    def __init__(self, generator: MasanGenerator) -> None:
        self._network = generator
        self._config = generator.config
        self._make = Operations()
        self._replicates = generator.config.padding == "replicate"

    def build(self) -> Any:
        make, network = self._make, self._network
        z = make.input("z", network.latent_dim)
        label = make.input("label", network.class_count)
        sides = self._config.noise_resolutions
        choice_widths = (CHOICE_NUMBERS,) if network.kinds else ()
        widths = (self._config.latent_dim, *(side**2 for side in sides), *choice_widths)
        latent, *rest = make.split(z, 1, widths)
        flat, choice = rest[: len(sides)], rest[len(sides) :]
        noise = {side: make.reshape(n, 1, 1, side, side) for side, n in zip(sides, flat, strict=True)}
        affine = self._affine(latent, label, self._kind(choice[0], label) if choice else None)
        x = self._first_map(latent)
        maps: dict[int, Node] = {}
        for resolution in network.block_resolutions():
            block = _child(network.up, resolution)
            x = self._up(block, x, affine[f"up.{resolution}"], noise.get(resolution // 2))
            if str(resolution) in network.refine:
                x = self._refine(_child(network.refine, resolution), x, affine[f"refine.{resolution}"])
            x = self._skip_and_attend(resolution, x, maps)
            maps[resolution] = x
        rgb = self._rgb(x)
        if self._config.rgb_skip:
            half = self._convolve(maps[network.resolution // 2], network.to_rgb_half.weight)
            doubled = make.double_bilinear(half, network.resolution)
            rgb = make.add(make.multiply(rgb, make.scalar(network.correction_gain)), doubled)
        image = make.tanh(make.multiply(rgb, make.scalar(self._config.output_gain)))
        if self._config.chroma_resolution:
            image = self._limit_chroma(cast("ChromaLimit", network.limit_chroma), image)
        return make.model(image, [z, label])

    def _first_map(self, latent: Node) -> Node:
        """The transposed convolution of a single pixel is a matrix product."""
        weight = self._network.init_z.weight  # [Z, C, 4, 4]
        flat = self._make.matmul(latent, self._make.constant(weight.flatten(1)))
        return self._make.reshape(flat, 1, *weight.shape[1:])

    def _kind(self, choice: Node, label: Node) -> Node:
        """See `KindChoice`."""
        make, kinds = self._make, cast("KindChoice", self._network.kinds)
        along, across = make.split(choice, 1, (1, 1))
        length = make.add(make.absolute(along), make.absolute(across))
        length = make.at_least(length, make.constant(np.full((1, 1), SHORTEST)))
        beside = make.subtract(make.constant(np.ones((1, 1))), make.divide(along, length))
        turn = make.multiply(make.sign(across), beside)
        chosen = make.is_within(turn, make.constant(kinds.first[None]), make.constant(kinds.last[None]))
        of_class = F.one_hot(kinds.class_of_kind, self._network.class_count).t()  # [K, T]
        return make.multiply(make.matmul(label, make.constant(of_class)), chosen)

    def _affine(self, latent: Node, label: Node, kind: Node | None) -> dict[str, tuple[Node, Node]]:
        """1 + gamma and beta of every `up.R` and `refine.R`, [1, C, 1, 1].

        A table where they depend on the class, or the kind, alone.
        """
        make, network = self._make, self._network
        blocks = [("up", network.up), ("refine", network.refine)]
        layers: dict[str, nn.Linear] = {
            f"{kind}.{side}": cast("Any", block).norm.affine
            for kind, d in blocks
            for side, block in d.items()
        }
        weight = torch.cat([layer.weight for layer in layers.values()])
        bias = torch.cat([layer.bias for layer in layers.values()])
        if self._config.adain_input == "class":
            kinds, classes = None, torch.eye(network.class_count)
            if network.kinds:
                kinds = torch.eye(network.kinds.kind_count)
                classes = network.kinds.class_label(kinds)
            table = make.constant(network.mapping(classes, kinds) @ weight.t() + bias)
            all_at_once = make.matmul(label if kind is None else kind, table)
        else:
            scaled = make.multiply(latent, make.constant(np.full((1, 1), self._config.latent_dim**-0.5)))
            mapped = make.concat([label, scaled], 1)
            for index, layer in enumerate(cast("list[nn.Linear]", list(network.mapping.layers))):
                mapped = make.linear(mapped, layer.weight, layer.bias)
                if index == 0 and network.mapping.kind is not None:
                    own = make.constant(network.mapping.kind.weight)
                    mapped = make.add(mapped, make.matmul(kind, own, transpose_second=True))
                mapped = make.leaky_relu(mapped, LRELU_SLOPE)
            all_at_once = make.linear(mapped, weight, bias)
        widths = [layer.out_features // 2 for layer in layers.values()]
        halves = make.split(all_at_once, 1, tuple(chain.from_iterable((w, w) for w in widths)))
        return {
            name: (make.add(make.as_channels(gamma), make.scalar(1.0)), make.as_channels(beta))
            for name, gamma, beta in zip(layers, halves[::2], halves[1::2], strict=True)
        }

    def _up(self, block: UpBlock, x: Node, affine: tuple[Node, Node], noise: Node | None) -> Node:
        make = self._make
        x = self._adapt(x, affine)
        if block.noise is not None and noise is not None:
            x = make.add(x, make.multiply(noise, make.constant(block.noise.strength[None])))
        x = make.leaky_relu(x, LRELU_SLOPE)
        if self._replicates:
            x = make.replicate_border(x)
        kernel = upsampling_kernel(block.conv.weight)
        return make.convolve_transposed(x, kernel, stride=2, padding=block.transposed_padding)

    def _refine(self, block: RefineBlock, x: Node, affine: tuple[Node, Node]) -> Node:
        make = self._make
        inner = self._convolve(make.leaky_relu(self._adapt(x, affine), LRELU_SLOPE), block.inner.weight)
        return make.add(x, self._convolve(make.leaky_relu(inner, LRELU_SLOPE), block.outer.weight))

    def _adapt(self, x: Node, affine: tuple[Node, Node]) -> Node:
        """AdaIN with what `_affine` gives."""
        scale, shift = affine
        normal = self._make.normalize(x, HEIGHT_AND_WIDTH, INSTANCE_NORM_EPS)
        return self._make.add(self._make.multiply(normal, scale), shift)

    def _skip_and_attend(self, resolution: int, x: Node, maps: dict[int, Node]) -> Node:
        network, key, sites = self._network, str(resolution), self._config.attention_sites
        attention: EMAttention | None = (
            _child(network.attention, resolution) if key in network.attention else None
        )
        if key in network.skip:
            small_side = resolution // 8
            small = maps[small_side]
            if sites == "skip" and attention is not None:
                small = attend(self._make, attention, small, small_side)
            x = self._skip(_child(network.skip, resolution), small, small_side, x)
        if sites in ("fusion", "all") and attention is not None:
            x = attend(self._make, attention, x, resolution)
        return x

    def _skip(self, skip: SkipGlobalContext, small: Node, side: int, big: Node) -> Node:
        make = self._make
        logits = make.reshape(make.convolve(small, skip.attend.weight), 1, 1, side * side)
        flat = make.reshape(small, 1, skip.attend.in_channels, side * side)
        pooled = make.matmul(flat, make.softmax(logits, 2), transpose_second=True)  # [1, Cs, 1]
        hidden = make.leaky_relu(make.convolve(make.as_channels(pooled), skip.squeeze.weight), LRELU_SLOPE)
        return make.add(big, make.convolve(hidden, skip.expand.weight))

    def _rgb(self, x: Node) -> Node:
        """The last 3x3 convolution as a 4x4 one of stride 2 with a channel for each pixel of a 2x2 block.

        Three output channels would leave most lanes of a vector idle; twelve fill them with 16/9 of the taps.
        """
        weight = self._network.to_rgb.weight  # [3, C, 3, 3]
        kernel = weight.new_zeros(3, 2, 2, weight.shape[1], 4, 4)
        for row in (0, 1):
            for column in (0, 1):
                kernel[:, row, column, :, row : row + 3, column : column + 3] = weight
        blocks = self._convolve(x, kernel.flatten(0, 2), stride=2)  # [1, 12, R/2, R/2]
        return self._make.depth_to_space(blocks, 2)

    def _limit_chroma(self, limit: ChromaLimit, image: Node) -> Node:
        """See `ChromaLimit`."""
        make, smoothing = self._make, self._make.constant(limit.smoothing)
        chroma = make.convolve(image, limit.analysis[:, :, None, None])  # [1, 2, R, R]
        smooth = make.matmul(make.matmul(smoothing, chroma), smoothing, transpose_second=True)
        too_fine = make.convolve(make.subtract(chroma, smooth), limit.synthesis[:, :, None, None])
        return make.clamp(make.subtract(image, too_fine), -1, 1)

    def _convolve(self, x: Node, kernel: Tensor, *, stride: int = 1) -> Node:
        """With the configured padding of one pixel."""
        if self._replicates:
            return self._make.convolve(self._make.replicate_border(x), kernel, stride=stride)
        return self._make.convolve(x, kernel, padding=1, stride=stride)


def _child(modules: nn.ModuleDict, resolution: int) -> Any:
    return modules[str(resolution)]
