"""Matrices in a few bits a value: what a reference set keeps of features, without much of their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_BITS = 8

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """N rows of J columns; every column has its own number of levels, equally spaced.

    packed: [N, bytes], each row's levels, one after another. bits: [J], 0..8; a column of none is constant.
    lower, step: [J], level 0 and the distance of levels. is_root: whether the levels are of square roots.
    """

    packed: ByteArray
    bits: ByteArray
    lower: FloatArray
    step: FloatArray
    is_root: bool

    @classmethod
    def of(cls, values: FloatArray, mean_bits: float, *, is_root: bool = False) -> PackedMatrix:
        """Pack values [N, J] in at most `mean_bits` bits a value.

        is_root: for values that are not negative and have long tails; their square roots get the levels.
        Bits go where they lower the total squared error: a column that spans twice as much has one more.
        """
        scaled = np.sqrt(values) if is_root else np.asarray(values, dtype=np.float32)
        lower, span = scaled.min(axis=0), np.ptp(scaled, axis=0)
        mean = values.mean(axis=0)
        bits = _allocate(span * 2 * np.sqrt(mean) if is_root else span, mean_bits)
        step = np.where(bits > 0, span / np.maximum(2.0**bits - 1, 1), 0).astype(np.float32)
        lower = np.where(bits > 0, lower, np.sqrt(mean) if is_root else mean).astype(np.float32)
        levels = np.rint((scaled - lower) / np.where(step > 0, step, 1)) * (step > 0)
        unpacked = np.unpackbits(levels.astype(np.uint8)[:, :, None], axis=2)  # [N, J, 8]
        return cls(np.packbits(unpacked[:, _is_kept(bits)], axis=1), bits, lower, step, is_root)

    def values(self) -> FloatArray:
        """The values [N, J], each within half a step of what was packed."""
        kept = _is_kept(self.bits)
        unpacked = np.zeros((len(self.packed), *kept.shape), dtype=np.uint8)
        unpacked[:, kept] = np.unpackbits(self.packed, axis=1, count=int(kept.sum()))
        scaled = self.lower + np.packbits(unpacked, axis=2)[:, :, 0] * self.step
        return np.asarray(np.square(scaled) if self.is_root else scaled, dtype=np.float32)

    def tensors(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """The parts by name, `{name}.packed` and so on, as a file keeps them."""
        return {
            f"{name}.packed": self.packed,
            f"{name}.bits": self.bits,
            f"{name}.lower": self.lower,
            f"{name}.step": self.step,
            f"{name}.is_root": np.array([self.is_root], dtype=np.uint8),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[np.generic]], name: str) -> PackedMatrix:
        """What `tensors` gave. Raises ValueError for parts that are absent or do not fit one another."""
        try:
            packed, bits, lower, step, is_root = (
                tensors[f"{name}.{part}"] for part in ("packed", "bits", "lower", "step", "is_root")
            )
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is missing") from error
        whole = all(part.dtype == np.uint8 for part in (packed, bits, is_root)) and packed.ndim == 2
        if not whole or not (bits.shape == lower.shape == step.shape and bits.ndim == 1):
            raise ValueError(f"{name} is no packed matrix")
        counts = bits.astype(np.int64)
        if counts.max(initial=0) > MAX_BITS or packed.shape[1] != -(-counts.sum() // 8):
            raise ValueError(f"{name} has {packed.shape[1]} bytes a row for {counts.sum()} bits")
        return cls(
            packed.astype(np.uint8),
            bits.astype(np.uint8),
            lower.astype(np.float32),
            step.astype(np.float32),
            bool(is_root.any()),
        )


def _allocate(span: FloatArray, mean_bits: float) -> ByteArray:
    """Bits for columns of such spans, in all at most `mean_bits` times their number, [J]."""
    log_span = np.log2(np.maximum(span, 1e-12))

    def bits_at(shift: float) -> npt.NDArray[np.float64]:
        return np.where(span > 0, np.clip(np.rint(log_span + shift), 0, MAX_BITS), 0)

    low, high = -64.0, 64.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if bits_at(middle).mean() > mean_bits else (middle, high)
    return bits_at(low).astype(np.uint8)


def _is_kept(bits: ByteArray) -> npt.NDArray[np.bool_]:
    """Which of a byte's bits, highest first, each column keeps, [J, 8]."""
    return np.arange(8)[None, :] >= 8 - bits.astype(np.int64)[:, None]
