"""What is packed comes back within half a level, in the bits that were allowed."""

import numpy as np
import numpy.typing as npt
import pytest

from model_store.quality.packed_matrix import PackedMatrix


def features(count: int = 60) -> npt.NDArray[np.float32]:
    """Not negative, with long tails, of very different spans, and one column that never changes."""
    rng = np.random.default_rng(0)
    values = rng.gamma(1.5, 1, (count, 40)) * np.geomspace(0.01, 3, 40)
    values[:, 7] = 0.25
    return values.astype(np.float32)


@pytest.mark.parametrize("is_root", [False, True])
@pytest.mark.parametrize("mean_bits", [2.0, 4.5, 8.0])
def test_values_come_back_within_half_a_level(is_root: bool, mean_bits: float) -> None:
    values = features()

    packed = PackedMatrix.of(values, mean_bits, is_root=is_root)

    before, after = (np.sqrt(part) if is_root else part for part in (values, packed.values()))
    coded = packed.bits > 0
    assert np.abs(before - after)[:, coded] == pytest.approx(0, abs=float(packed.step.max()) / 2 + 1e-5)
    assert np.all(np.abs(before - after)[:, coded] <= packed.step[coded] / 2 + 1e-5)
    assert packed.values()[:, 7] == pytest.approx(0.25)
    assert packed.bits.mean() <= mean_bits
    assert packed.packed.shape == (60, -(-int(packed.bits.sum()) // 8))


def test_wide_columns_get_more_bits_than_narrow_ones() -> None:
    packed = PackedMatrix.of(features(), 4.0, is_root=True)

    assert packed.bits[-1] > packed.bits[0]
    assert packed.bits[7] == 0


def test_more_bits_are_more_exact() -> None:
    values = features()

    errors = [np.square(PackedMatrix.of(values, bits).values() - values).sum() for bits in (2, 4, 6)]

    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_a_matrix_is_read_from_its_parts() -> None:
    packed = PackedMatrix.of(features(), 3.0, is_root=True)

    again = PackedMatrix.from_tensors(packed.tensors("features"), "features")

    assert np.array_equal(again.values(), packed.values())


def test_parts_that_do_not_fit_are_named() -> None:
    parts = PackedMatrix.of(features(), 3.0).tensors("features")

    with pytest.raises(ValueError, match=r"features\.step is missing"):
        PackedMatrix.from_tensors({k: v for k, v in parts.items() if k != "features.step"}, "features")
    with pytest.raises(ValueError, match="features is no packed matrix"):
        PackedMatrix.from_tensors({**parts, "features.bits": parts["features.bits"][:-1]}, "features")
    with pytest.raises(ValueError, match="bytes a row for"):
        PackedMatrix.from_tensors({**parts, "features.packed": parts["features.packed"][:, 1:]}, "features")
