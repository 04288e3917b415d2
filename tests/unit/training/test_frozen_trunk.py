from typing import Any

import pytest
import torch

from training.frozen_trunk import TAP_CHANNELS, FrozenTrunk


@pytest.mark.parametrize("variant", [0, 1])
def test_trunk_gives_each_stride_s_last_map(variant: int) -> None:
    trunk = FrozenTrunk(variant=variant)
    network: Any = trunk.network
    blocks = network._blocks
    taps = trunk(torch.zeros(1, 3, 64, 64))

    strides = [block._depthwise_conv.stride[0] for block in blocks] + [2]
    assert trunk.tap_blocks == tuple(i for i in range(1, len(blocks)) if strides[i + 1] == 2)
    assert [tuple(tap.shape[1:]) for tap in taps] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(TAP_CHANNELS, (4, 8, 16, 32), strict=True)
    ]


def test_fewer_scales_are_the_finest_of_all() -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1

    few, every = FrozenTrunk(scales=3)(images), FrozenTrunk()(images)

    assert len(few) == 3
    for tap, same in zip(few, every[:3], strict=True):
        torch.testing.assert_close(tap, same)
