"""The few of OpenVINO's operations that a generator's graph needs, what never varies filled in."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from model_store.prepared.openvino_runtime import load_openvino, load_operations

Node: TypeAlias = Any
"""`openvino.Node` or one output of it."""


class Operations:
    """Raises ImportError where OpenVINO is not installed. Tensors given become float32 constants."""

    def __init__(self) -> None:
        self._openvino = load_openvino()
        self._ops = load_operations()

    def model(self, output: Node, inputs: Sequence[Node]) -> Any:
        return self._openvino.Model([self._ops.result(output)], list(inputs), "generator")

    def input(self, name: str, width: int) -> Node:
        """[1, width], float32."""
        return self._ops.parameter([1, width], np.float32, name=name)

    def constant(self, value: Tensor | npt.NDArray[np.floating[Any]]) -> Node:
        array = value.detach().float().cpu().numpy() if isinstance(value, Tensor) else value
        return self._ops.constant(np.ascontiguousarray(array, dtype=np.float32))

    def scalar(self, value: Tensor | float) -> Node:
        """[1, 1, 1, 1]."""
        return self.constant(np.full((1, 1, 1, 1), float(value)))

    def add(self, first: Node, second: Node) -> Node:
        return self._ops.add(first, second)

    def subtract(self, first: Node, second: Node) -> Node:
        return self._ops.subtract(first, second)

    def multiply(self, first: Node, second: Node) -> Node:
        return self._ops.multiply(first, second)

    def divide(self, first: Node, second: Node) -> Node:
        return self._ops.divide(first, second)

    def absolute(self, x: Node) -> Node:
        return self._ops.absolute(x)

    def sign(self, x: Node) -> Node:
        return self._ops.sign(x)

    def at_least(self, x: Node, least: Node) -> Node:
        return self._ops.maximum(x, least)

    def clamp(self, x: Node, least: float, most: float) -> Node:
        return self._ops.clamp(x, least, most)

    def is_within(self, x: Node, first: Node, last: Node) -> Node:
        """1 where first <= x < last, else 0."""
        both = self._ops.logical_and(self._ops.greater_equal(x, first), self._ops.less(x, last))
        return self._ops.convert(both, np.float32)

    def tanh(self, x: Node) -> Node:
        return self._ops.tanh(x)

    def sigmoid(self, x: Node) -> Node:
        return self._ops.sigmoid(x)

    def softmax(self, x: Node, axis: int) -> Node:
        return self._ops.softmax(x, axis)

    def leaky_relu(self, x: Node, slope: float) -> Node:
        return self._ops.prelu(x, self.constant(np.array([slope])))

    def matmul(self, first: Node, second: Node, *, transpose_second: bool = False) -> Node:
        return self._ops.matmul(first, second, False, transpose_second)

    def linear(self, x: Node, weight: Tensor, bias: Tensor) -> Node:
        """x [1, A], weight [B, A], bias [B] -> [1, B]."""
        product = self.matmul(x, self.constant(weight), transpose_second=True)
        return self.add(product, self.constant(bias[None]))

    def convolve(self, x: Node, kernel: Tensor, *, padding: int = 0, stride: int = 1) -> Node:
        """kernel [Cout, Cin, k, k]."""
        pads = [padding, padding]
        return self._ops.convolution(x, self.constant(kernel), [stride, stride], pads, pads, [1, 1])

    def convolve_each_channel(self, x: Node, kernel: Tensor, *, padding: int) -> Node:
        """kernel [C, k, k]: one of its own for each channel."""
        pads = [padding, padding]
        weights = self.constant(kernel[:, None, None])
        return self._ops.group_convolution(x, weights, [1, 1], pads, pads, [1, 1])

    def convolve_transposed(self, x: Node, kernel: Tensor, *, stride: int, padding: int) -> Node:
        """kernel [Cin, Cout, k, k]."""
        pads = [padding, padding]
        return self._ops.convolution_backprop_data(
            x,
            self.constant(kernel),
            [stride, stride],
            pads_begin=pads,
            pads_end=pads,
            dilations=[1, 1],
        )

    def replicate_border(self, x: Node) -> Node:
        """[1, C, H, W] -> [1, C, H + 2, W + 2]."""
        widths = self._integers([0, 0, 1, 1])
        return self._ops.pad(x, widths, widths, "edge")

    def normalize(self, x: Node, axes: Sequence[int], eps: float) -> Node:
        """(x - mean) / sqrt(variance + eps), both over `axes`."""
        return self._ops.mvn(x, self._integers(axes), True, eps, "inside_sqrt")

    def mean(self, x: Node, axis: int) -> Node:
        """The axis is kept."""
        return self._ops.reduce_mean(x, self._integers([axis]), True)

    def sum(self, x: Node, axis: int) -> Node:
        """The axis is kept."""
        return self._ops.reduce_sum(x, self._integers([axis]), True)

    def at(self, x: Node, axis: int, index: int) -> Node:
        """One place along an axis, which is kept."""
        bounds = (self._integers([value]) for value in (index, index + 1, 1, axis))
        return self._ops.slice(x, *bounds)

    def reshape(self, x: Node, *shape: int) -> Node:
        return self._ops.reshape(x, self._integers(shape), False)

    def as_channels(self, x: Node) -> Node:
        """-> [1, C, 1, 1]."""
        return self.reshape(x, 1, -1, 1, 1)

    def transpose(self, x: Node, *axes: int) -> Node:
        return self._ops.transpose(x, self._integers(axes))

    def concat(self, parts: Sequence[Node], axis: int) -> Node:
        return self._ops.concat(list(parts), axis)

    def split(self, x: Node, axis: int, lengths: Sequence[int]) -> list[Node]:
        parts = self._ops.variadic_split(x, self._integers(axis), self._integers(lengths))
        outputs: list[Node] = parts.outputs()
        return outputs

    def depth_to_space(self, x: Node, block: int) -> Node:
        """[1, C * block * block, H, W] -> [1, C, H * block, W * block]."""
        return self._ops.depth_to_space(x, "depth_first", block)

    def double_bilinear(self, x: Node, side: int) -> Node:
        """To `side` pixels, as torch does without `align_corners`."""
        return self._ops.interpolate(
            x,
            self._integers([side, side]),
            "linear_onnx",
            "sizes",
            coordinate_transformation_mode="half_pixel",
            axes=self._integers([2, 3]),
        )

    def _integers(self, values: Sequence[int] | int) -> Node:
        return self._ops.constant(np.array(values, dtype=np.int64))
