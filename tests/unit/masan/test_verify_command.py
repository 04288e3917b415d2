"""`masan verify` as a person types it: what it prints and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sealed_jobs import PUBLIC_KEY, SealedJob


def masan(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "masan.cli", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    return SealedJob(folder / "results").archive("zip", folder / "job.zip")


def test_authentic_archive_ends_with_0(archive: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    key.write_text(f"{PUBLIC_KEY}\n")

    done = masan(archive, "--key", key)

    assert (done.returncode, done.stderr) == (0, "")
    assert "6 images, each as the manifest says" in done.stdout
    assert "the one given" in done.stdout


def test_altered_archive_ends_with_1_and_says_why(archive: Path, tmp_path: Path) -> None:
    altered = tmp_path / "job.zip"
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    altered.write_bytes(content)

    done = masan(altered, "--key", PUBLIC_KEY)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "benign/000000.png: cannot be read" in done.stderr


def test_bad_usage_ends_with_2_and_one_line(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("nothing of ours")
    for arguments, named in (
        ((tmp_path / "absent",), "no such file"),
        ((other,), "neither an archive"),
        ((archive, "--key", "nonsense"), "--key nonsense"),
        ((archive, "--key", PUBLIC_KEY, "--server", "http://127.0.0.1:1"), "not both"),
    ):
        done = masan(*arguments)

        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert named in done.stderr


def test_image_is_only_described_offline(archive: Path, tmp_path: Path) -> None:
    folder = SealedJob(tmp_path / "results").folder(tmp_path / "out")
    image = folder / "pro_b" / "000001.png"

    done, signed = masan(image), masan(image, "--key", PUBLIC_KEY)

    assert done.returncode == 0
    assert "image id: abababababababab.pro_b.7.1.0.7000" in done.stdout
    assert "nothing here proves that" in done.stdout
    assert (signed.returncode, "not signed by itself" in signed.stderr) == (2, True)


def test_certificate_alone_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(SealedJob(tmp_path / "results").certificate())

    assert masan(path, "--key", PUBLIC_KEY).returncode == 0
