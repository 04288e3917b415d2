"""CRC-32 of joined data from the CRC-32s of its parts.

The register of a CRC is a vector of 32 bits, and a zero bit of input multiplies it by a matrix over GF(2).
Appending n bytes to data multiplies the register by that matrix to the power of 8 n; the bytes themselves
are then added, which is what their own CRC holds. The power takes log2(n) squarings, and is kept, because
the parts of an archive are of few lengths.
"""

from functools import lru_cache

_POLYNOMIAL = 0xEDB8_8320
"""Of zip and PNG, its lowest coefficient in the highest bit."""

_Matrix = tuple[int, ...]
"""32 columns; column i is what bit i becomes."""

_ONE_BIT: _Matrix = (_POLYNOMIAL, *(1 << i for i in range(31)))
_IDENTITY: _Matrix = tuple(1 << i for i in range(32))


def join_crc32(first: int, second: int, second_bytes: int) -> int:
    """CRC-32 of data whose first part has the CRC `first` and whose other `second_bytes` have `second`."""
    return _times(_zeros(second_bytes), first) ^ second


@lru_cache(maxsize=256)
def _zeros(count_bytes: int) -> _Matrix:
    """What `count_bytes` zero bytes do to the register."""
    power, result, left = _ONE_BIT, _IDENTITY, 8 * count_bytes
    while left:
        if left & 1:
            result = tuple(_times(power, column) for column in result)
        power = tuple(_times(power, column) for column in power)
        left >>= 1
    return result


def _times(matrix: _Matrix, vector: int) -> int:
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product
