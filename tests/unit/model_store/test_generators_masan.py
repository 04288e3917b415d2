from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_store.generators.layers import ChromaLimit, Padding, use_transposed_convolutions
from model_store.generators.masan import AttentionSites, MasanConfig, MasanGenerator


def tiny(**changes: Any) -> MasanGenerator:
    torch.manual_seed(0)
    values = {"class_count": 3, "resolution": 64, "latent_dim": 8, "base_channels": 2, "attention_groups": 2}
    return MasanGenerator(MasanConfig(**(values | changes))).eval()


def inputs(generator: MasanGenerator, n: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    z = torch.randn(n, generator.latent_dim, generator=random)
    return z, torch.eye(generator.class_count)[torch.arange(n) % generator.class_count]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("sites", "groups", "classes", "count"),
    [
        ("none", 8, 4, 6_090_208),
        ("none", 8, 5, 6_090_336),
        ("fusion", 8, 4, 6_093_680),
        ("fusion", 8, 5, 6_093_808),
        ("fusion", 16, 4, 6_090_208 + 896),
        ("fusion", 32, 4, 6_090_208 + 238),
        ("skip", 8, 4, 6_090_208 + 61_952),
        ("skip", 16, 4, 6_090_208 + 15_616),
        ("skip", 32, 4, 6_090_208 + 3_968),
    ],
)
def test_parameter_counts_are_the_published_ones(
    sites: AttentionSites, groups: int, classes: int, count: int
) -> None:
    config = MasanConfig(class_count=classes, attention_sites=sites, attention_groups=groups)

    with torch.device("meta"):
        generator = MasanGenerator(config)

    assert parameters(generator) == count


def test_stages_have_the_published_sizes() -> None:
    with torch.device("meta"):
        generator = MasanGenerator(MasanConfig(class_count=4, attention_sites="none"))

    stages = {key: parameters(block) for key, block in generator.up.items()}
    skips = {key: parameters(block) for key, block in generator.skip.items()}

    assert stages == {
        "8": 2_491_392,
        "16": 1_311_744,
        "32": 655_872,
        "64": 360_960,
        "128": 106_752,
        "256": 34_944,
    }
    assert skips == {"64": 20_992, "128": 5_376, "256": 2_560}
    assert parameters(generator.init_z) == 1_048_576
    assert parameters(generator.to_rgb) == 864


@pytest.mark.parametrize("resolution", [16, 64, 128])
@pytest.mark.parametrize("sites", ["none", "fusion", "skip", "all"])
def test_images_have_the_asked_for_size_and_range(resolution: int, sites: AttentionSites) -> None:
    generator = tiny(resolution=resolution, attention_sites=sites)

    images = generator(*inputs(generator))

    assert images.shape == (3, 3, resolution, resolution)
    assert images.abs().max() <= 1
    assert images.std() > 0


def test_attention_stands_where_its_sites_say() -> None:
    assert list(tiny(resolution=256).attention) == ["64", "128", "256"]
    assert list(tiny(resolution=256, attention_sites="skip").attention) == ["64", "128", "256"]
    assert list(tiny(attention_sites="all").attention) == ["8", "16", "32", "64"]
    assert list(tiny(resolution=256, attention_resolutions=(64, 128)).attention) == ["64", "128"]
    assert not tiny(attention_sites="none").attention


@pytest.mark.parametrize("sites", ["fusion", "skip", "all"])
def test_attention_changes_the_image(sites: AttentionSites) -> None:
    generator = tiny(attention_sites=sites)
    plain = tiny(attention_sites="none")
    missing, _ = plain.load_state_dict(generator.state_dict(), strict=False)

    images = generator(*inputs(generator))

    assert missing == []
    assert (images - plain(*inputs(plain))).abs().max() > 1e-4


def test_groups_fall_to_keep_their_least_width() -> None:
    generator = tiny(resolution=256, base_channels=8, attention_groups=8, attention_min_width=4)

    assert {key: module.groups for key, module in generator.attention.items()} == {
        "64": 8,
        "128": 4,
        "256": 2,
    }


def test_class_alone_decides_the_published_condition() -> None:
    z, label = inputs(tiny())

    published, with_latent = tiny(), tiny(adain_input="class+z")

    assert torch.equal(published.condition(z, label), published.condition(-z, label))
    assert not torch.equal(with_latent.condition(z, label), with_latent.condition(-z, label))


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_transposed_convolutions_give_the_same_images(padding: Padding) -> None:
    generator = tiny(base_channels=4, padding=padding, rgb_skip=True)
    z, label = inputs(generator)

    plain = generator(z, label)
    rewritten = use_transposed_convolutions(generator)(z, label)

    torch.testing.assert_close(rewritten, plain, rtol=0, atol=1e-5)


def test_replicated_borders_look_like_the_middle_where_nothing_varies() -> None:
    zeros, replicate = (tiny(attention_sites="none", padding=padding) for padding in ("zeros", "replicate"))
    z, label = inputs(zeros, n=1)
    for generator in (zeros, replicate):
        torch.nn.init.ones_(
            generator.init_z.weight
        )  # every map the same everywhere, but for the border's mark

    assert replicate(z, label).std(dim=(2, 3)).max() < 1e-6 < zeros(z, label).std(dim=(2, 3)).min()


def test_gradients_reach_every_parameter() -> None:
    generator = tiny(resolution=128, rgb_skip=True, attention_sites="all", attention_min_width=2)

    generator(*inputs(generator)).square().mean().backward()

    assert [name for name, p in generator.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in generator.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 100}, "resolution 100 is not one of"),
        ({"attention_sites": "some"}, "attention_sites 'some'"),
        ({"adain_input": "z"}, "adain_input 'z'"),
        ({"padding": "reflect"}, "padding 'reflect' is not zeros or replicate"),
        (
            {"refine_resolutions": (4, 8)},
            r"refine_resolutions \(4, 8\) are not all among \(8, 16, 32, 64, 128, 256\)",
        ),
        ({"chroma_resolution": 0}, r"chroma_resolution 0 is not 1..256"),
        ({"chroma_resolution": 512}, r"chroma_resolution 512 is not 1..256"),
        ({"class_count": 0}, "class_count 0 is not at least 1"),
        ({"base_channels": 0}, "base_channels 0"),
    ],
)
def test_config_names_what_cannot_be_built(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MasanConfig(**({"class_count": 2} | changes))


def test_noise_is_part_of_the_latent_and_reaches_its_own_places() -> None:
    plain, noisy = tiny(), tiny(noise_resolutions=(4, 16))
    assert noisy.latent_dim == plain.latent_dim + 4**2 + 16**2
    z, label = inputs(noisy, n=1)
    moved = z.clone()
    moved[0, plain.latent_dim + 4**2] += 3  # the upper left pixel of the map of side 16

    with torch.no_grad():
        change = (noisy(moved, label) - noisy(z, label)).abs().amax(dim=(0, 1))

    assert change[:8, :8].max() > 10 * change[40:, 40:].max()


def test_colour_beyond_its_resolution_is_left_out() -> None:
    plain, coarse = tiny(), tiny(chroma_resolution=16)
    coarse.load_state_dict(plain.state_dict())
    z, label = inputs(plain)

    with torch.no_grad():
        images = coarse(z, label)
        expected = ChromaLimit(plain.resolution, 16)(plain(z, label))

    torch.testing.assert_close(images, expected)
    assert (images - plain(z, label)).abs().max() > 0.01


def test_silent_noise_leaves_the_published_network() -> None:
    plain, noisy = tiny(), tiny(noise_resolutions=(8,))
    noisy.load_state_dict(plain.state_dict(), strict=False)
    torch.nn.init.zeros_(noisy.get_parameter("up.16.noise.strength"))
    z, label = inputs(noisy)

    torch.testing.assert_close(noisy(z, label), plain(z[:, : plain.latent_dim], label))


def test_refinements_start_as_the_network_without_them_and_then_reach_every_pixel() -> None:
    plain, refined = tiny(), tiny(refine_resolutions=(8, 32))
    missing = refined.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {name.rsplit(".", 2)[0] for name in missing} == {
        f"refine.{side}{part}" for side in (8, 32) for part in ("", ".norm")
    }
    z, label = inputs(plain)
    torch.testing.assert_close(refined(z, label), plain(z, label))

    with torch.no_grad():
        refined.get_parameter("refine.32.outer.weight").normal_(0, 0.5)
        change = (refined(z, label) - plain(z, label)).abs().amax(dim=(0, 1))

    assert change.min() > 0


def test_noise_beyond_the_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise_resolutions \(64,\) are not all among \(4, 8, 16, 32\)"):
        tiny(noise_resolutions=(64,))


def test_attention_groups_that_do_not_divide_the_channels_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"^attention_groups 7: 128 channels at 64 px do not divide into 7 groups"
    ):
        MasanGenerator(MasanConfig(class_count=2, attention_groups=7))
