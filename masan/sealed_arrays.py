"""The arrays of a job's npz, compared with its manifest. Without NumPy, which the client does not have.

Source: NEP 1, "A Simple File Format for NumPy Arrays", version 1.0.
"""

import ast
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from masan.errors import ArchiveCorruptedError
from masan.sealed_files import SealedFiles

IMAGES_ARRAY: Final = "images.npy"
ARRAYS: Final = (IMAGES_ARRAY, "labels.npy", "classes.npy", "image_ids.npy", "index.npy")
_MAGIC: Final = b"\x93NUMPY\x01\x00"
_MAX_COLUMN_BYTES: Final = 256 * 2**20
_Rows = list[dict[str, Any]]


def check_arrays(files: SealedFiles, rows: _Rows) -> list[str]:
    """What is wrong, a sentence for each array: pixels, labels, classes, ids and places of all images."""
    problems = []
    for name, check in _CHECKS.items():
        try:
            with files.open(name) as file:
                if reason := check(file, rows):
                    problems.append(f"{name}: {reason}")
        except KeyError:
            problems.append(f"{name}: not there")
        except ArchiveCorruptedError as error:
            problems.append(f"{name}: {error}")
        except Exception as error:  # what reading a damaged archive raises is no small set
            problems.append(f"{name}: cannot be read ({error})")
    return problems


def _check_images(file: IO[bytes], rows: _Rows) -> str | None:
    descr, shape = _header(file)
    if descr != "|u1" or shape != (len(rows), rows[0]["height"], rows[0]["width"], 3):
        return f"{descr} {shape} is not what the manifest says"
    for position, row in enumerate(rows):
        if hashlib.sha256(file.read(3 * shape[1] * shape[2])).hexdigest() != row["pixels_sha256"]:
            return f"image {position} is not {row['image_id']}"
    return "goes on after the last image" if file.read(1) else None


def _check_classes(file: IO[bytes], rows: _Rows) -> str | None:
    classes = dict(enumerate(_texts(file)))
    wrong = (row for row in rows if classes.get(row["class_index"]) != row["class_slug"])
    return next((f"label {row['class_index']} is {row['class_slug']} in the manifest" for row in wrong), None)


def _check_column(
    values: Callable[[IO[bytes]], list[Any]], member: str
) -> Callable[[IO[bytes], _Rows], str | None]:
    def check(file: IO[bytes], rows: _Rows) -> str | None:
        return None if values(file) == [row[member] for row in rows] else "not what the manifest says"

    return check


def _header(file: IO[bytes]) -> tuple[str, tuple[int, ...]]:
    """Type and shape of an array in C order. Raises ArchiveCorruptedError."""
    fixed = file.read(len(_MAGIC) + 2)
    if not fixed.startswith(_MAGIC) or len(fixed) != len(_MAGIC) + 2:
        raise ArchiveCorruptedError("header", "not of an array of version 1.0")
    (length,) = struct.unpack("<H", fixed[len(_MAGIC) :])
    try:
        header = ast.literal_eval(file.read(length).decode("ascii").strip())
        descr, shape, is_fortran = header["descr"], tuple(header["shape"]), header["fortran_order"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ArchiveCorruptedError("header", "cannot be read") from error
    if is_fortran or not isinstance(descr, str) or not all(isinstance(size, int) for size in shape):
        raise ArchiveCorruptedError("header", "not of a plain array in C order")
    return descr, shape


def _column(file: IO[bytes]) -> tuple[str, bytes]:
    """Type and bytes of an array of one dimension."""
    descr, shape = _header(file)
    content = file.read(_MAX_COLUMN_BYTES + 1)
    if len(shape) != 1 or len(content) > _MAX_COLUMN_BYTES:
        raise ArchiveCorruptedError("shape", f"{shape} is not one value an image")
    return descr, content


def _integers(file: IO[bytes]) -> list[Any]:
    descr, content = _column(file)
    if descr != "<i8" or len(content) % 8:
        raise ArchiveCorruptedError("type", f"{descr} instead of <i8")
    return list(struct.unpack(f"<{len(content) // 8}q", content))


def _texts(file: IO[bytes]) -> list[Any]:
    descr, content = _column(file)
    width = int(descr[2:]) if descr.startswith("<U") and descr[2:].isdecimal() else 0
    if not width or len(content) % (4 * width):
        raise ArchiveCorruptedError("type", f"{descr} instead of text")
    return [text.rstrip("\0") for text in _decoded(content, 4 * width)]


def _decoded(content: bytes, size_bytes: int) -> Iterator[str]:
    return (content[at : at + size_bytes].decode("utf-32-le") for at in range(0, len(content), size_bytes))


_CHECKS: Final[dict[str, Callable[[IO[bytes], _Rows], str | None]]] = {
    IMAGES_ARRAY: _check_images,
    "labels.npy": _check_column(_integers, "class_index"),
    "classes.npy": _check_classes,
    "image_ids.npy": _check_column(_texts, "image_id"),
    "index.npy": _check_column(_integers, "index"),
}
