import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.discriminators.cellgan import (
    Decoder,
    DownBlock,
    PixelDiscriminator,
    Reconstruct,
    crop,
    feature_count,
    random_corner,
    reconstruction_targets,
)
from training.discriminators.masan import SanHeadKind, build_head


def tiny(
    resolution: int = 64, *, decoders: bool = True, activated_shortcut: bool = True
) -> PixelDiscriminator:
    torch.manual_seed(0)
    return PixelDiscriminator(
        build_head("per_class", 3, feature_count(2)),
        resolution=resolution,
        base_channels=2,
        decoders=decoders,
        activated_shortcut=activated_shortcut,
    )


def batch(resolution: int = 64, n: int = 3) -> tuple[Tensor, Tensor]:
    images = torch.rand(n, 3, resolution, resolution, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return images, torch.eye(3)[torch.arange(n) % 3]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("head", "classes", "decoders", "count"),
    [
        ("plain", 4, True, 7_267_360),
        ("plain", 5, True, 7_267_872),
        ("plain", 4, False, 6_122_848),
        ("per_class", 4, True, 7_266_852),
        ("shared_plus_class", 4, True, 7_267_365),
    ],
)
def test_parameter_counts_are_the_published_ones(
    head: SanHeadKind, classes: int, decoders: bool, count: int
) -> None:
    discriminator = PixelDiscriminator(build_head(head, classes, feature_count(32)), decoders=decoders)

    assert parameters(discriminator) == count


def test_stages_have_the_published_sizes() -> None:
    discriminator = PixelDiscriminator(build_head("plain", 4, 512))

    assert {side: parameters(block) for side, block in discriminator.down.items()} == {
        "128": 57_344,
        "64": 229_376,
        "32": 917_504,
        "16": 1_245_184,
        "8": 3_670_016,
    }
    assert parameters(discriminator.stem) == 864
    assert parameters(discriminator.decoders["part"]) == 424_800
    assert parameters(discriminator.decoders["whole"]) == 719_712


@pytest.mark.parametrize("resolution", [16, 32, 64, 256])
def test_patch_logits_and_reconstructions_have_their_sizes(resolution: int) -> None:
    discriminator = tiny(resolution)
    images, label = batch(resolution)

    output = discriminator(images, label, Reconstruct(2, torch.tensor([1, 2])))

    assert output.logits.full.shape == (3, 64)
    assert output.decoded is not None
    for decoded in output.decoded:
        assert decoded.shape == (2, 3, resolution // 2, resolution // 2)
        assert decoded.abs().max() <= 1


def test_without_decoders_there_is_nothing_to_reconstruct() -> None:
    discriminator = tiny(decoders=False)

    output = discriminator(*batch())

    assert output.decoded is None
    assert not [name for name, _ in discriminator.named_parameters() if name.startswith("decoders")]


@pytest.mark.parametrize("activated_shortcut", [True, False])
def test_down_block_equals_the_published_block_with_and_without_its_in_place_activation(
    activated_shortcut: bool,
) -> None:
    block = DownBlock(4, 6, activated_shortcut=activated_shortcut)
    main = nn.Sequential(
        nn.LeakyReLU(0.2, inplace=activated_shortcut), block.conv1, nn.LeakyReLU(0.2), block.conv2
    )
    shortcut = nn.Sequential(nn.AvgPool2d(2), block.shortcut)
    x = torch.randn(2, 4, 8, 8)
    given = x.clone()

    with torch.no_grad():
        published = main(given) + shortcut(given)  # in place: the shortcut sees what the main path did to it
        ours = block(x)

    torch.testing.assert_close(ours, published)
    assert torch.equal(given, x) != activated_shortcut


@pytest.mark.parametrize("activated_shortcut", [True, False])
def test_decoders_see_the_published_maps(activated_shortcut: bool) -> None:
    discriminator = tiny(activated_shortcut=activated_shortcut)
    images, label = batch()
    corner = torch.tensor([9, 21])  # cells of 4 px: features 2..9 and 5..12
    x = discriminator.stem(images)
    for side in ("32", "16"):
        x = discriminator.down[side](x)
    seen = F.leaky_relu(x, 0.2) if activated_shortcut else x

    output = discriminator(images, label, Reconstruct(2, corner))

    assert output.decoded is not None
    part, whole = output.decoded
    torch.testing.assert_close(part, discriminator.decoders["part"](seen[:2, :, 2:10, 5:13]))
    torch.testing.assert_close(whole, discriminator.decoders["whole"](discriminator.down["8"](x)[:2]))


def test_decoder_activates_before_doubling() -> None:
    decoder = Decoder(4, 1, 16)
    x = torch.randn(2, 4, 8, 8)
    (conv,) = decoder.convs
    doubled = F.interpolate(F.leaky_relu(x, 0.2), scale_factor=2.0)

    torch.testing.assert_close(decoder(x), torch.tanh(decoder.to_rgb(conv(doubled))))


def test_label_enters_in_the_head_alone() -> None:
    discriminator = tiny()
    images, label = batch()
    relabelled = label.clone()
    relabelled[1] = label[0]

    change = (discriminator(images, relabelled).logits.full - discriminator(images, label).logits.full).abs()

    assert (change.amax(dim=1) > 0).tolist() == [False, True, False]


def test_images_do_not_mix_so_that_one_pass_serves_real_and_generated() -> None:
    discriminator = tiny()
    images, label = batch(n=4)

    together = discriminator(images, label).logits.full
    apart = torch.cat([discriminator(images[i : i + 2], label[i : i + 2]).logits.full for i in (0, 2)])

    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)


def test_corner_is_drawn_below_half_the_side() -> None:
    random = torch.Generator().manual_seed(0)

    corners = torch.stack([random_corner(32, aligned=False, generator=random) for _ in range(500)])

    assert set(corners.flatten().tolist()) == set(range(16))


def test_aligned_corner_stands_on_cells_both_ends_included() -> None:
    random = torch.Generator().manual_seed(0)

    corners = torch.stack([random_corner(256, aligned=True, generator=random) for _ in range(500)])

    assert set(corners.flatten().tolist()) == {16 * cell for cell in range(9)}


def test_targets_are_the_window_and_every_second_pixel() -> None:
    images, _ = batch(16)

    part, whole = reconstruction_targets(images, torch.tensor([3, 5]))

    assert torch.equal(part, images[:, :, 3:11, 5:13])
    assert torch.equal(whole, F.interpolate(images, scale_factor=0.5, mode="nearest"))
    assert torch.equal(crop(images, torch.tensor([0, 8]), 8), images[:, :, :8, 8:])


def test_resolution_must_fit() -> None:
    with pytest.raises(ValueError, match="resolution 100 is not one of"):
        PixelDiscriminator(build_head("plain", 2, 32), resolution=100, base_channels=2)
