import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from model_store.generators.layers import (
    CONDITION_DIM,
    AdaIN,
    ChromaLimit,
    ClassMapping,
    EMAttention,
    Padding,
    SkipGlobalContext,
    UpBlock,
    fix_transposed_kernels,
    upsampling_kernel,
    use_transposed_convolutions,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomize(module: nn.Module) -> None:
    """Every parameter away from its special starting value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def published_attention(module: EMAttention, x: Tensor) -> Tensor:
    """The module step by step, as its authors publish it."""
    n, c, h, w = x.shape
    g = module.groups
    grouped = x.reshape(n * g, c // g, h, w)
    rows = grouped.mean(dim=3, keepdim=True)
    columns = grouped.mean(dim=2, keepdim=True).transpose(2, 3)
    mixed_rows, mixed_columns = module.conv1x1(torch.cat([rows, columns], dim=2)).split([h, w], dim=2)
    local = module.norm(grouped * mixed_rows.sigmoid() * mixed_columns.transpose(2, 3).sigmoid())
    wide = module.conv3x3(grouped)
    p1 = F.adaptive_avg_pool2d(local, 1).flatten(1).softmax(dim=1)[:, None]  # [Ng, 1, m]
    p2 = F.adaptive_avg_pool2d(wide, 1).flatten(1).softmax(dim=1)[:, None]
    logits = (p1 @ wide.flatten(2) + p2 @ local.flatten(2)).reshape(n * g, 1, h, w)
    attended: Tensor = (grouped * logits.sigmoid()).reshape(n, c, h, w)
    return attended


@pytest.mark.parametrize(
    ("channels", "groups", "h", "w"), [(16, 8, 6, 9), (12, 1, 5, 5), (8, 8, 4, 3), (6, 2, 1, 7), (4, 2, 2, 2)]
)
def test_attention_equals_the_published_steps(channels: int, groups: int, h: int, w: int) -> None:
    module = EMAttention(channels, groups)
    randomize(module)
    x = random(3, channels, h, w).requires_grad_(True)

    ours, published = module(x), published_attention(module, x)

    torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-5)
    weights = random(*x.shape, seed=2)
    inputs = [x, *module.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((published * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_attention_gates_between_zero_and_one() -> None:  # T1
    module = EMAttention(16, 4)
    x = random(2, 16, 7, 5) + 0.01

    ratio = module(x) / x

    assert module(x).shape == x.shape
    assert ratio.min() > 0
    assert ratio.max() < 1


def test_attention_gate_is_one_for_a_whole_group() -> None:  # T2
    module = EMAttention(16, 4)
    randomize(module)
    x = random(2, 16, 6, 6).abs() + 0.5

    ratio = (module(x) / x).unflatten(1, (4, 4))

    assert ratio.std(dim=2).max() < 1e-6
    assert ratio.std(dim=1).max() > 1e-3  # and differs between groups


def test_attention_of_nothing_is_nothing() -> None:  # T3
    module = EMAttention(8, 2)
    randomize(module)

    assert torch.count_nonzero(module(torch.zeros(1, 8, 5, 5))) == 0


def test_attention_groups_do_not_see_one_another() -> None:  # T4
    module = EMAttention(12, 3)
    randomize(module)
    x = random(2, 12, 6, 6)
    shifted = x.clone()
    shifted[:, 4:8] += 3.0

    change = (module(shifted) - module(x)).abs().amax(dim=(0, 2, 3))

    assert torch.count_nonzero(change[:4]) == torch.count_nonzero(change[8:]) == 0
    assert change[4:8].min() > 0


def test_attention_shares_its_weights_between_groups() -> None:  # T5
    module = EMAttention(12, 3)
    randomize(module)
    x = random(2, 12, 6, 6)
    order = [2, 0, 1]

    permuted = module(x.unflatten(1, (3, 4))[:, order].flatten(1, 2))

    torch.testing.assert_close(permuted, module(x).unflatten(1, (3, 4))[:, order].flatten(1, 2))


def test_attention_without_branches_halves() -> None:  # T6
    module = EMAttention(8, 2)
    for parameter in (*module.norm.parameters(), *module.conv3x3.parameters()):
        nn.init.zeros_(parameter)
    x = random(2, 8, 5, 5)

    assert torch.equal(module(x), 0.5 * x)


def test_attention_weighs_the_wide_branch_by_its_norm_biases_alone() -> None:  # T7
    module = EMAttention(6, 2)
    randomize(module)
    x = random(2, 6, 8, 8)
    grouped = x.reshape(4, 3, 8, 8)
    gated = module.norm(grouped * random(4, 3, 8, 1, seed=5).sigmoid() * random(4, 3, 1, 8, seed=6).sigmoid())

    pooled = gated.mean(dim=(2, 3)).softmax(dim=1)

    torch.testing.assert_close(pooled, module.norm.bias.softmax(dim=0).expand(4, 3))


def test_attention_gives_the_golden_values() -> None:  # T8
    module = EMAttention(2, 1)
    for parameter in (*module.conv1x1.parameters(), *module.conv3x3.parameters()):
        nn.init.zeros_(parameter)
    with torch.no_grad():
        module.conv1x1.weight[:, :, 0, 0] = torch.eye(2)
        module.conv3x3.weight[:, :, 1, 1] = torch.eye(2)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, -1.0], [1.0, 0.0]]]])
    golden = torch.tensor(
        [[[[0.332380, 0.971205], [2.768586, 3.853987]], [[0.0, -0.485602], [0.922862, 0.0]]]]
    )

    torch.testing.assert_close(module(x), golden, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(128, 8), (64, 8), (32, 8), (32, 32)])
def test_attention_has_ten_m_squared_plus_four_m_parameters(channels: int, groups: int) -> None:
    m = channels // groups

    assert sum(p.numel() for p in EMAttention(channels, groups).parameters()) == 10 * m * m + 4 * m


def test_attention_refuses_groups_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="10 channels do not divide into 4 groups"):
        EMAttention(10, 4)


def test_adain_is_instance_norm_scaled_and_shifted_by_the_condition() -> None:
    module = AdaIN(6)
    x, condition = random(2, 6, 5, 7) * 3 + 2, random(2, CONDITION_DIM)
    gamma, beta = module.affine(condition)[:, :, None, None].chunk(2, dim=1)

    expected = (1 + gamma) * F.instance_norm(x, eps=1e-5) + beta

    torch.testing.assert_close(module(x, condition), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("rewrite", [None, use_transposed_convolutions, fix_transposed_kernels])
def test_up_block_equals_the_published_order(
    rewrite: Callable[[UpBlock], UpBlock] | None, padding: Padding
) -> None:
    block = UpBlock(6, 4, padding=padding)
    x, condition = random(2, 6, 5, 5), random(2, CONDITION_DIM)
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")

    published = block.conv(F.leaky_relu(block.norm(doubled, condition), 0.2))
    stored = set(block.state_dict())
    if rewrite is not None:
        rewrite(block)

    assert block.transposed == (rewrite is not None)
    assert set(block.state_dict()) == stored
    torch.testing.assert_close(block(x, condition), published, rtol=1e-4, atol=1e-5)


def test_upsampling_kernel_collapses_three_taps_to_two() -> None:
    a, b, c = 1.0, 10.0, 100.0
    weight = torch.tensor([a, b, c])[:, None] * torch.tensor([0.0, 1.0, 0.0])[None, :]

    kernel = upsampling_kernel(weight[None, None])

    assert kernel[0, 0, :, 1].tolist() == [c, b + c, a + b, a]


def test_skip_adds_one_vector_pooled_by_attention() -> None:
    module = SkipGlobalContext(8, 12)
    small, big = random(2, 8, 3, 3), random(2, 12, 6, 6)
    weights = module.attend(small).flatten(2).softmax(dim=2)
    context = torch.einsum("ncp,np->nc", small.flatten(2), weights[:, 0])[:, :, None, None]

    added = module(small, big) - big

    torch.testing.assert_close(
        added, module.expand(F.leaky_relu(module.squeeze(context), 0.2)).expand_as(big)
    )
    assert module.squeeze.out_channels == 3


def test_class_mapping_activates_its_last_layer_too() -> None:
    module = ClassMapping(4)
    x = torch.eye(4)
    y = x
    for layer in module.layers:
        y = F.leaky_relu(layer(y), 0.2)

    assert torch.equal(module(x), y)
    assert sum(p.numel() for p in module.parameters()) == 50_176


def jpeg(image: npt.NDArray[np.uint8], subsampling: str) -> Tensor:
    """What a JPEG keeps of an image [H, W, 3], as [1, 3, H, W] in [-1, 1]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95, subsampling=subsampling)
    pixels = torch.from_numpy(np.array(Image.open(file)))
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def luma(images: Tensor) -> Tensor:
    return torch.einsum("j,njhw->nhw", torch.tensor([0.299, 0.587, 0.114]), images)


def test_chroma_limit_takes_colour_alone() -> None:
    images = 0.4 * random(2, 3, 64, 64).tanh()
    gray = images[:, :1].expand(-1, 3, -1, -1)
    limit = ChromaLimit(64, 16)

    limited = limit(images)

    torch.testing.assert_close(luma(limited), luma(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(limit(gray), gray, rtol=0, atol=1e-6)
    assert (limited - images).square().mean() > 0.5 * images.var()  # fifteen sixteenths of white colour noise


def test_chroma_limit_leaves_a_photograph_with_halved_colour_nearly_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(96, 160, (64, 64, 3), dtype=np.uint8)
    limit = ChromaLimit(64, 32)

    taken = {
        sampling: float((limit(image) - image).std())
        for sampling, image in ((name, jpeg(noise, name)) for name in ("4:2:0", "4:4:4"))
    }

    assert taken["4:2:0"] < 0.3 * taken["4:4:4"]


def test_chroma_limit_stays_within_the_range_of_images() -> None:
    saturated = random(1, 3, 32, 32).sign()

    assert ChromaLimit(32, 8)(saturated).abs().max() <= 1
