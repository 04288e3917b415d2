import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.diffaugment import DiffAugment, color, cutout, translate
from training.errors import ConfigInvalidError


def images(n: int = 4, side: int = 32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(n: int) -> Tensor:
    """The draw that changes nothing."""
    return torch.full((n, 1, 1, 1), 0.5)


def ints(*values: int) -> Tensor:
    return torch.tensor(values)


def test_empty_policy_is_the_identity() -> None:
    x = images()

    assert DiffAugment("")(x) is x


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "color,cutout,translation"])
def test_same_draws_give_the_same_images_and_other_draws_others(policy: str) -> None:
    augment, x = DiffAugment(policy), images()

    assert torch.equal(augment(x, seeded(1)), augment(x, seeded(1)))
    assert not torch.equal(augment(x, seeded(1)), augment(x, seeded(2)))
    assert augment(x, seeded(1)).shape == x.shape


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "color,translation,cutout"])
def test_gradients_reach_the_image(policy: str) -> None:
    x = images().requires_grad_(True)

    DiffAugment(policy)(x, seeded()).sum().backward()

    assert x.grad is not None
    assert x.grad.flatten(1).abs().sum(dim=1).min() > 0


def test_steps_are_applied_in_the_order_written() -> None:
    x = images()

    cut_last, cut_first = (DiffAugment(p)(x, seeded(3)) for p in ("translation,cutout", "cutout,translation"))

    assert not torch.equal(cut_last, cut_first)


def test_middle_draws_leave_colours_alone() -> None:
    x = images()

    torch.testing.assert_close(color(x, halves(4), halves(4), halves(4)), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("draw", "shift"), [(0.0, -0.5), (1.0, 0.5)])
def test_brightness_moves_by_up_to_a_half(draw: float, shift: float) -> None:
    x = images()

    changed = color(x, torch.full((4, 1, 1, 1), draw), halves(4), halves(4))

    torch.testing.assert_close(changed, x + shift, rtol=1e-5, atol=1e-6)


def test_saturation_zero_leaves_gray_and_two_doubles_the_distance_to_it() -> None:
    x = images()
    gray = x.mean(dim=1, keepdim=True).expand_as(x)

    none, double = (color(x, halves(4), torch.full((4, 1, 1, 1), draw), halves(4)) for draw in (0.0, 1.0))

    torch.testing.assert_close(none, gray)
    torch.testing.assert_close(double - gray, 2 * (x - gray), rtol=1e-4, atol=1e-5)


def test_contrast_scales_around_each_images_mean() -> None:
    x = images()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)

    low, high = (color(x, halves(4), halves(4), torch.full((4, 1, 1, 1), draw)) for draw in (0.0, 1.0))

    torch.testing.assert_close(low - mean, 0.5 * (x - mean), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(high - mean, 1.5 * (x - mean), rtol=1e-4, atol=1e-5)


def test_brightness_averages_out_over_draws() -> None:
    x = torch.full((4000, 3, 2, 2), 0.25)

    shifts = DiffAugment("color")(x, seeded())[:, 0, 0, 0] - 0.25

    assert abs(float(shifts.mean())) < 4 * 0.2887 / 4000**0.5  # four standard errors of U(-0.5, 0.5)
    assert float(shifts.std()) == pytest.approx(0.2887, rel=0.05)
    assert shifts.abs().max() <= 0.5


def test_color_leaves_its_share_of_images_alone() -> None:
    x = images(2000, side=2)

    changed = DiffAugment("color", color_probability=0.8)(x, seeded())

    unchanged = (changed == x).flatten(1).all(dim=1).float().mean()
    assert float(unchanged) == pytest.approx(0.2, abs=0.04)


def test_translation_leaves_its_share_of_images_alone() -> None:
    x = images(1000, side=8)

    moved = DiffAugment("translation", translation_probability=0.6, translation_ratio=0.5)(x, seeded())

    unmoved = (moved == x).flatten(1).all(dim=1).float().mean()
    assert float(unmoved) == pytest.approx(0.4 + 0.6 / 81, abs=0.05)


def test_translation_by_nothing_leaves_images_alone() -> None:
    x = images()

    assert torch.equal(translate(x, torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)), x)


def test_translation_shows_each_image_from_its_own_place() -> None:
    x = images(2)

    moved = translate(x, ints(2, -3), ints(-1, 4))

    assert torch.equal(moved[0, :, :-2, 1:], x[0, :, 2:, :-1])
    assert torch.equal(moved[1, :, 3:, :-4], x[1, :, :-3, 4:])
    assert torch.count_nonzero(moved[0, :, -2:]) == torch.count_nonzero(moved[0, :, :, :1]) == 0
    assert torch.count_nonzero(moved[1, :, :3]) == torch.count_nonzero(moved[1, :, :, -4:]) == 0


def test_a_reflecting_translation_mirrors_the_image_at_its_border() -> None:
    x = images(2)

    moved = translate(x, ints(2, -3), ints(-1, 4), "reflect")

    padded = F.pad(x, (4, 4, 4, 4), mode="reflect")
    assert torch.equal(moved[0], padded[0, :, 6:-2, 3:-5])
    assert torch.equal(moved[1], padded[1, :, 1:-7, 8:])


def test_a_reflecting_translation_shows_corners_as_much_as_the_middle() -> None:
    shown = {}
    for fill in ("zeros", "reflect"):
        x = torch.zeros(2000, 1, 32, 32, requires_grad=True)
        DiffAugment("translation", translation_fill=fill)(x, seeded()).sum().backward()
        assert x.grad is not None
        shown[fill] = x.grad.mean(dim=(0, 1))

    assert float(shown["zeros"][0, 0]) == pytest.approx((5 / 9) ** 2, abs=0.04)
    assert float(shown["reflect"][1, 1]) == pytest.approx((10 / 9) ** 2, abs=0.08)
    assert float(shown["reflect"].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize(("ratio", "furthest"), [(0.125, 4), (0.25, 8)])
def test_translation_reaches_its_share_of_the_side_both_ways_and_no_further(
    ratio: float, furthest: int
) -> None:
    x = torch.zeros(3000, 1, 32, 32)
    x[:, :, 16, 16] = 1.0

    moved = DiffAugment("translation", translation_ratio=ratio)(x, seeded())

    rows = moved.sum(dim=(1, 3)).argmax(dim=1) - 16
    columns = moved.sum(dim=(1, 2)).argmax(dim=1) - 16
    assert set(rows.tolist()) == set(columns.tolist()) == set(range(-furthest, furthest + 1))
    assert not torch.equal(rows, columns)


def test_cutout_outside_leaves_images_alone() -> None:
    x = images(2)

    assert torch.equal(cutout(x, ints(-8, 40), ints(16, 16), 16, 16), x)


def test_cutout_is_a_square_clipped_at_the_border() -> None:
    x = torch.ones(2, 3, 32, 32)

    cut = cutout(x, ints(16, 0), ints(16, 32), 8, 8)

    assert torch.count_nonzero(cut[0] == 0) == 3 * 8 * 8
    assert torch.count_nonzero(cut[0, :, 12:20, 12:20]) == 0
    assert torch.count_nonzero(cut[1] == 0) == 3 * 4 * 4
    assert torch.count_nonzero(cut[1, :, :4, 28:]) == 0


@pytest.mark.parametrize(("ratio", "side"), [(0.5, 16), (0.2, 6)])
def test_cutout_takes_its_share_of_the_side_anywhere(ratio: float, side: int) -> None:
    cut = DiffAugment("cutout", cutout_ratio=ratio)(torch.ones(2000, 1, 32, 32), seeded()) == 0

    areas = cut.sum(dim=(1, 2, 3))
    assert int(areas.max()) == side * side
    assert int(areas.min()) >= (side // 2) ** 2  # the centre never leaves the image
    assert bool(cut.any(dim=0).all())


def test_unknown_policy_is_named() -> None:
    with pytest.raises(ConfigInvalidError, match="'rotate' is not one of color, translation, cutout"):
        DiffAugment("color,rotate")
