"""The arrays of an npz against its manifest: each wrong one is named, and why."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masan.sealed_arrays import ARRAYS, check_arrays
from masan.sealed_files import open_files
from masan.sealed_manifest import parse_rows
from tests.sealed_jobs import SealedJob


def problems_with(tmp_path: Path, **changes: Any) -> list[str]:
    """Of a job's npz, some arrays replaced as NumPy writes them. None: left out."""
    whole = SealedJob(tmp_path / "results").archive("npz", tmp_path / "job.npz")
    with zipfile.ZipFile(whole) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name, value in changes.items():
        buffer = io.BytesIO()
        if isinstance(value, bytes):
            buffer.write(value)
        elif value is not None:
            np.save(buffer, value, allow_pickle=False)
        files[f"{name}.npy"] = buffer.getvalue()
        if value is None:
            del files[f"{name}.npy"]
    with zipfile.ZipFile(tmp_path / "changed.npz", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with open_files(tmp_path / "changed.npz") as changed:
        return check_arrays(changed, parse_rows(files["manifest.jsonl"]))


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, Any]:
    """As NumPy reads them."""
    path = SealedJob(tmp_path / "first").archive("npz", tmp_path / "first.npz")
    with np.load(path, allow_pickle=False) as loaded:
        return {name.removesuffix(".npy"): loaded[name.removesuffix(".npy")] for name in ARRAYS}


def test_arrays_as_numpy_writes_them_are_right(tmp_path: Path, arrays: dict[str, Any]) -> None:
    assert problems_with(tmp_path, **arrays) == []


def test_each_wrong_array_is_named(tmp_path: Path, arrays: dict[str, Any]) -> None:
    images = arrays["images"].copy()
    images[4, 0, 0, 0] ^= 1

    for name, value, reason in (
        ("images", images, "image 4 is not abababababababab.pro_b.7.1.0.7000"),
        ("images", arrays["images"][:5], "(5, 8, 8, 3)"),
        ("images", np.asfortranarray(arrays["images"]), "C order"),
        ("labels", 1 - arrays["labels"], "not what the manifest says"),
        ("labels", arrays["labels"].astype(np.int32), "<i4"),
        ("classes", arrays["classes"][::-1], "label 0 is benign"),
        ("image_ids", arrays["image_ids"][::-1], "not what the manifest says"),
        ("index", arrays["index"][:2], "not what the manifest says"),
        ("index", None, "not there"),
        ("index", b"", "header"),
        ("index", b"\x93NUMPY\x01\x00\x04\x00((((", "header"),
    ):
        problems = problems_with(tmp_path, **{name: value})

        assert len(problems) == 1
        assert problems[0].startswith(f"{name}.npy: ")
        assert reason in problems[0]
