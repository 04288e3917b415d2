from collections.abc import Iterator

import pytest
import torch
from torch import nn

from training.discriminators.projected import (
    FrozenFeatures,
    ProjectedDiscriminator,
    mixed_channels,
)
from training.frozen_trunk import TAP_CHANNELS

PUBLISHED = (64, 128, 256, 512)
WIDTHS = {128: 64, 64: 64, 32: 128, 16: 256, 8: 512}


@pytest.fixture(scope="module")
def features() -> Iterator[FrozenFeatures]:
    torch.manual_seed(0)
    yield FrozenFeatures(PUBLISHED)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_trunk_and_mixing_have_the_published_sizes(features: FrozenFeatures) -> None:
    assert parameters(features.channel_mix) == 200_128
    assert parameters(features.scale_mix) == 176_640


def test_maps_have_the_published_channels_and_strides(features: FrozenFeatures) -> None:
    images = torch.zeros(1, 3, 64, 64)

    assert [tuple(tap.shape[1:]) for tap in features.trunk(images)] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(TAP_CHANNELS, (4, 8, 16, 32), strict=True)
    ]
    assert [tuple(y.shape[1:]) for y in features(images)] == [
        (64, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
    ]
    assert mixed_channels(PUBLISHED) == (64, 64, 128, 256)


def test_everything_in_it_is_frozen_and_stays_in_eval_mode(features: FrozenFeatures) -> None:
    features.train()

    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert not any(module.training for module in features.modules())


def test_gradients_reach_the_image_from_every_scale(features: FrozenFeatures) -> None:
    images = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_(
        True
    )

    for scale in features(images):
        (gradient,) = torch.autograd.grad(scale.square().mean(), images, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_images_do_not_influence_one_another(features: FrozenFeatures) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    for together, alone in zip(features(images), features(images[:1]), strict=True):
        torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-4)


def test_heads_have_the_published_sizes() -> None:
    with torch.device("meta"):
        discriminator = ProjectedDiscriminator(4, 256, PUBLISHED, WIDTHS)
    san = 4 * 64 + 4

    sizes = [parameters(head) - san for head in discriminator.heads]

    assert sizes == [3_345_216, 3_279_488, 3_148_032, 2_622_976]
    assert [round(size / 1e6, 3) for size in sizes] == [3.345, 3.279, 3.148, 2.623]


def test_every_scale_gives_five_by_five_logits_at_full_size() -> None:
    discriminator = ProjectedDiscriminator(3, 256, (2, 3, 4, 5), dict.fromkeys(WIDTHS, 4))
    maps = [
        torch.randn(2, channels, side, side)
        for channels, side in zip((2, 2, 3, 4), (128, 64, 32, 16), strict=True)
    ]

    logits = discriminator(maps, torch.eye(3)[:2])

    assert [tuple(scale.full.shape) for scale in logits] == [(2, 25)] * 4


def test_directions_are_put_back_on_the_sphere() -> None:
    discriminator = ProjectedDiscriminator(3, 64, (2, 3, 4, 5), dict.fromkeys(WIDTHS, 4))
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(2)

    discriminator.normalize_()

    norms = [p.norm(dim=1) for name, p in discriminator.named_parameters() if name.endswith("san.weight")]
    assert len(norms) == 4
    torch.testing.assert_close(torch.stack(norms), torch.ones(4, 3))
