"""What `masan verify` finds out without asking anybody: every change is noticed, in every format."""

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masan.verify import check_certificate, check_image, check_job, media_type_of
from model_store.certificate import parse_public_key
from tests.sealed_jobs import FORMATS, KEY, SealedJob

PUBLIC = KEY.public_key()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SealedJob:
    return SealedJob(tmp_path_factory.mktemp("results"))


def problem_of(path: Path) -> str:
    """What is wrong with it; that something is."""
    findings = check_job(path, PUBLIC)
    assert not findings.is_authentic
    return "; ".join(findings.problems)


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_archive_is_authentic(job: SealedJob, tmp_path: Path, kind: str) -> None:
    findings = check_job(job.archive(kind, tmp_path / f"job.{kind}"), PUBLIC)

    assert findings.problems == []
    assert "the certificate is of these images" in findings.facts
    assert any("3 benign, 3 pro_b of tiny@1 (seed 7)" in fact for fact in findings.facts)
    assert any("the one given" in fact for fact in findings.facts)


def test_unpacked_folder_is_authentic_beside_its_contact_sheet(job: SealedJob, tmp_path: Path) -> None:
    folder = job.folder(tmp_path / "out")
    (folder / "contact_sheet.png").write_bytes(b"an overview")

    assert check_job(folder, PUBLIC).problems == []


def test_unpacked_tar_is_authentic(job: SealedJob, tmp_path: Path) -> None:
    with tarfile.open(job.archive("tar", tmp_path / "job.tar")) as tar:
        tar.extractall(tmp_path / "out", filter="data")

    assert check_job(tmp_path / "out", PUBLIC).problems == []


def test_without_a_key_it_says_that_anybody_may_have_signed(job: SealedJob, tmp_path: Path) -> None:
    findings = check_job(job.archive("zip", tmp_path / "job.zip"), None)

    assert findings.is_authentic
    assert any("pin it with --key" in fact for fact in findings.facts)


@pytest.mark.parametrize("kind", FORMATS)
def test_archive_signed_with_another_key_is_not(job: SealedJob, tmp_path: Path, kind: str) -> None:
    other = parse_public_key("OwowOwowOwowOwowOwowOwowOwowOwowOwowOwowOwo=")

    findings = check_job(job.archive(kind, tmp_path / f"job.{kind}"), other)

    assert "signed with key" in "; ".join(findings.problems)


@pytest.mark.parametrize("kind", FORMATS)
def test_certificate_of_another_job_is_noticed(job: SealedJob, tmp_path: Path, kind: str) -> None:
    other = SealedJob(tmp_path / "other", seed=8).certificate()

    path = job.archive(kind, tmp_path / f"job.{kind}", certificate=other)

    assert "not of these files" in problem_of(path)


@pytest.mark.parametrize("kind", FORMATS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_changed_byte_of_content_passes(
    job: SealedJob, tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    """Flips a byte within an image, a label or the manifest; padding and directories prove nothing."""
    path = tmp_path / f"job.{kind}"
    content = bytearray(job.archive(kind, path).read_bytes())
    spans = content_spans(path)
    start, stop = data.draw(st.sampled_from(spans))
    at = data.draw(st.integers(start, stop - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    problem_of(path)


def content_spans(path: Path) -> list[tuple[int, int]]:
    """Where the bytes of an archive's files lie."""
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return [(member.offset_data, member.offset_data + member.size) for member in tar]
    if path.suffix == ".parquet":
        starts = [match.start() for match in re.finditer(b"\x89PNG", path.read_bytes())]
        return [(at, at + 180) for at in starts]  # 8 x 8 px of noise take more
    spans = []
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            at = entry.header_offset + 30 + len(entry.filename)
            spans.append((at, at + entry.file_size))
    return spans


Edit = Callable[[Path], None]


def change_an_image(folder: Path) -> None:
    (folder / "pro_b/000001.png").write_bytes((folder / "pro_b/000002.png").read_bytes())


def lose_an_image(folder: Path) -> None:
    (folder / "pro_b/000001.png").unlink()


def add_an_image(folder: Path) -> None:
    (folder / "pro_b/000009.png").write_bytes(b"mine")


def swap_the_classes(folder: Path) -> None:
    (folder / "pro_b").rename(folder / "aside")
    (folder / "benign").rename(folder / "pro_b")
    (folder / "aside").rename(folder / "benign")


def relabel_in_the_manifest(folder: Path) -> None:
    manifest = folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"class_slug":"pro_b"', '"class_slug":"benign"'))


def drop_a_row_and_its_image(folder: Path) -> None:
    manifest = folder / "manifest.jsonl"
    *lines, last = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines) + "\n")
    (folder / json.loads(last)["file"]).unlink()


def lose_the_certificate(folder: Path) -> None:
    (folder / "certificate.json").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.jsonl").unlink()


def point_outside(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(b"s")
    (folder / "pro_b/000001.png").unlink()
    (folder / "pro_b/000001.png").symlink_to(folder.parent / "secret.png")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (change_an_image, "pro_b/000001.png: it is not what the manifest says"),
        (lose_an_image, "pro_b/000001.png: named by the manifest, but not there"),
        (add_an_image, "pro_b/000009.png: not named by the manifest"),
        (swap_the_classes, "benign/000000.png: it is not what the manifest says"),
        (relabel_in_the_manifest, "manifest_sha256: the certificate is not of these files"),
        (drop_a_row_and_its_image, "manifest_sha256: the certificate is not of these files"),
        (lose_the_certificate, "certificate.json: not there"),
        (lose_the_manifest, "manifest.jsonl: not there"),
        (point_outside, "pro_b/000001.png: named by the manifest, but not there"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_done_to_a_folder_is_told(job: SealedJob, tmp_path: Path, edit: Edit, named: str) -> None:
    folder = job.folder(tmp_path / "out")
    edit(folder)

    assert named in problem_of(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{}\n", b"[1]\n", b'{"file": 1}\n', b"\xff\n", b"[" * 100_000 + b"\n"],
    ids=["empty", "blank", "no row", "a list", "wrong types", "no text", "deep"],
)
def test_manifest_that_is_none_is_told(job: SealedJob, tmp_path: Path, content: bytes) -> None:
    folder = job.folder(tmp_path / "out")
    (folder / "manifest.jsonl").write_bytes(content)

    assert "manifest.jsonl" in problem_of(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"", b"PK\x03\x04", b"PAR1"]), st.binary(max_size=600))
def test_any_bytes_are_judged(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "job"
    path.write_bytes(head + tail)

    problem_of(path)


def test_every_prefix_of_an_archive_is_judged(job: SealedJob, tmp_path: Path) -> None:
    content = job.archive("zip", tmp_path / "job.zip").read_bytes()
    for length in range(0, len(content) - 1, 400):
        (tmp_path / "job.zip").write_bytes(content[:length])

        problem_of(tmp_path / "job.zip")


def test_certificate_alone_is_read(job: SealedJob) -> None:
    assert check_certificate(job.certificate(), PUBLIC).is_authentic
    assert not check_certificate(b"{}", PUBLIC).is_authentic


def test_image_tells_which_one_it_is(job: SealedJob, tmp_path: Path) -> None:
    with zipfile.ZipFile(job.archive("zip", tmp_path / "job.zip")) as archive:
        content = archive.read("pro_b/000002.png")

    findings = check_image(content)

    assert findings.is_authentic
    assert findings.facts[0] == f"image id: {job.rows[-1].image_id}"
    assert any("synthetic" in fact for fact in findings.facts)
    assert not check_image(b"\x89PNG\r\n\x1a\n").is_authentic


def test_image_files_are_told_by_their_first_bytes() -> None:
    assert media_type_of(b"\x89PNG\r\n\x1a\n...") == "image/png"
    assert media_type_of(b"RIFF....WEBPVP8L") == "image/webp"
    assert media_type_of(b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert media_type_of(b"GIF89a") is None
