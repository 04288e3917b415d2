"""EMA attention for one image, in the form that takes fewest passes over the map."""

import torch
from torch import Tensor

from model_store.generators.layers import EMAttention
from model_store.prepared.openvino_operations import Node, Operations

_HEIGHT, _WIDTH = 2, 3


def attend(make: Operations, attention: EMAttention, x: Node, side: int) -> Node:
    """x [1, C, side, side] -> the same shape.

    Weights that all groups share become block-diagonal matrices, so that no map is ever regrouped: a map with
    a fifth axis leaves the layout that convolutions want. A group's sum over its channels and its way back to
    them are one such matrix of ones.
    """
    rows, columns = make.mean(x, _WIDTH), make.mean(x, _HEIGHT)  # [1, C, side, 1], [1, C, 1, side]
    gate_rows, gate_columns = _directional_gates(make, attention, rows, columns, side)
    gated = make.multiply(make.multiply(x, gate_rows), gate_columns)
    normal = make.normalize(gated, (_HEIGHT, _WIDTH), attention.norm.eps)
    weights = _local_weights(make, attention, x, rows, columns, side)
    scale, shift = (
        make.multiply(weights, _per_channel(make, attention, values))
        for values in (attention.norm.weight, attention.norm.bias)
    )
    wide = make.convolve_each_channel(x, _wide_kernel(attention), padding=1)
    summands = make.add(make.add(wide, make.multiply(normal, scale)), shift)
    logits = make.convolve(summands, _as_kernel(_group_sums(attention)))
    wide_bias = make.scalar(torch.dot(_wide_share(attention), _bias(attention.conv3x3)))
    return make.multiply(x, make.sigmoid(make.add(logits, wide_bias)))


def _directional_gates(
    make: Operations, attention: EMAttention, rows: Node, columns: Node, side: int
) -> tuple[Node, Node]:
    """[1, C, side, 1] and [1, C, 1, side], each in (0, 1)."""
    lines = make.concat([rows, make.transpose(columns, 0, 1, 3, 2)], _HEIGHT)
    mixed = make.convolve(lines, _as_kernel(_for_all_groups(attention, attention.conv1x1.weight[:, :, 0, 0])))
    gates = make.sigmoid(make.add(mixed, _per_channel(make, attention, _bias(attention.conv1x1))))
    gate_rows, gate_columns = make.split(gates, _HEIGHT, (side, side))
    return gate_rows, make.transpose(gate_columns, 0, 1, 3, 2)


def _local_weights(
    make: Operations, attention: EMAttention, x: Node, rows: Node, columns: Node, side: int
) -> Node:
    """Softmax within each group over the 3x3 branch's spatial means [1, C, 1, 1], which border sums give."""
    groups, width = attention.groups, attention.width
    last = side - 1
    corner_share = make.scalar(1 / side**2)
    row_shares, column_shares = (make.multiply(lines, make.scalar(1 / side)) for lines in (rows, columns))
    total = make.sum(row_shares, _HEIGHT)  # [1, C, 1, 1], in units of one map's mean
    top, bottom = (make.at(row_shares, _HEIGHT, i) for i in (0, last))
    left, right = (make.at(column_shares, _WIDTH, i) for i in (0, last))
    taps = []
    for row, row_index in ((bottom, last), (None, None), (top, 0)):
        for column, column_index in ((right, last), (None, None), (left, 0)):
            tap = total
            if row is not None:
                tap = make.subtract(tap, row)
            if column is not None:
                tap = make.subtract(tap, column)
            if row_index is not None and column_index is not None:
                corner = make.at(make.at(x, _HEIGHT, row_index), _WIDTH, column_index)
                tap = make.add(tap, make.multiply(corner, corner_share))
            taps.append(tap)
    weight = attention.conv3x3.weight.flatten(2)  # [m, m, 9]
    by_tap = torch.cat([_for_all_groups(attention, weight[:, :, tap]) for tap in range(9)], dim=1)  # [C, 9C]
    sums = make.reshape(make.concat(taps, 1), 1, 9 * groups * width)
    means = make.linear(sums, by_tap, _bias(attention.conv3x3).repeat(groups))
    return make.as_channels(make.softmax(make.reshape(means, groups, width), 1))


def _wide_kernel(attention: EMAttention) -> Tensor:
    """The 3x3 branch weighed over its outputs, one kernel for each channel [C, 3, 3]."""
    kernel = torch.einsum("o,omyx->myx", _wide_share(attention), attention.conv3x3.weight)
    return kernel.repeat(attention.groups, 1, 1)


def _wide_share(attention: EMAttention) -> Tensor:
    return attention.norm.bias.softmax(dim=0)  # [m]


def _group_sums(attention: EMAttention) -> Tensor:
    """[C, C]: gives every channel the sum over its group."""
    return _for_all_groups(attention, torch.ones(attention.width, attention.width))


def _for_all_groups(attention: EMAttention, matrix: Tensor) -> Tensor:
    """[m, m] -> block-diagonal [C, C]."""
    return torch.kron(torch.eye(attention.groups), matrix)


def _as_kernel(matrix: Tensor) -> Tensor:
    return matrix[:, :, None, None]


def _per_channel(make: Operations, attention: EMAttention, values: Tensor) -> Node:
    """[m] -> [1, C, 1, 1]."""
    return make.constant(values.repeat(attention.groups).reshape(1, -1, 1, 1))


def _bias(layer: torch.nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise TypeError("the attention's convolutions have biases")
    return layer.bias
