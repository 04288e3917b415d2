"""What can be proven of a job's files, or of one image, without asking anybody.

The certificate's signature holds for the certificate; that names the digests of the manifest; that names the
digest of every file. Whose key it was is for the reader to know.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from masan.archive import MANIFEST
from masan.errors import ArchiveCorruptedError
from masan.sealed_arrays import ARRAYS, IMAGES_ARRAY, check_arrays
from masan.sealed_files import SealedFiles, is_table, open_files
from masan.sealed_manifest import NamedFile, named_files, parse_rows
from masan.sealed_table import read_table

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from model_store.certificate import Certificate

MAX_IMAGE_BYTES: Final = 16 * 2**20
_MAX_RECORD_BYTES: Final = 256 * 2**20
"""Of a manifest or a certificate; 50,000 images need an eighth of it."""
_BLOCK_BYTES: Final = 2**20
_SHOWN_PROBLEMS: Final = 10


@dataclass
class Findings:
    """facts: what holds, a sentence each. problems: what speaks against the files' being authentic."""

    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def is_authentic(self) -> bool:
        return not self.problems

    def shown_problems(self) -> list[str]:
        """The first of them, and how many more there are."""
        rest = len(self.problems) - _SHOWN_PROBLEMS
        return self.problems[:_SHOWN_PROBLEMS] + ([f"and {rest} more"] if rest > 0 else [])


def check_job(path: Path, trusted: "Ed25519PublicKey | None") -> Findings:
    """path: an archive, or the folder that it was unpacked to. trusted: the key it must be signed with.

    Raises OSError, ExtraMissingError for a parquet file without pyarrow.
    """
    findings = Findings()
    try:
        if not path.is_dir() and is_table(path):
            _check_table(path, trusted, findings)
            return findings
        with open_files(path) as files:
            _check_files(files, trusted, findings)
    except ArchiveCorruptedError as error:
        findings.problems.append(str(error))
    return findings


def check_certificate(content: bytes, trusted: "Ed25519PublicKey | None") -> Findings:
    """A certificate alone."""
    findings = Findings()
    _read_certificate(content, trusted, findings)
    return findings


def check_image(content: bytes) -> Findings:
    """What an image says of itself; only drawing it again proves that."""
    from model_store.origin import DISCLAIMER, read_origin

    image_id = read_origin(content)
    if image_id is None:
        return Findings(problems=["the file carries no image id of MASAN, or several"])
    return Findings(
        facts=[
            f"image id: {image_id}",
            f"its mark means: {DISCLAIMER}",
            f"checkpoint {image_id.digest}..., class {image_id.class_slug}, "
            f"seed {image_id.seed}, index {image_id.index}, attempt {image_id.attempt}, "
            f"truncation {image_id.truncation:g}",
            f"sha256: {hashlib.sha256(content).hexdigest()}",
        ]
    )


def media_type_of(content: bytes) -> str | None:
    """Of an image file, by its first bytes; None for a file that is none of ours."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if content.startswith(b"\xff\xd8\xff") else None


def _check_files(files: SealedFiles, trusted: "Ed25519PublicKey | None", findings: Findings) -> None:
    from model_store.certificate import CERTIFICATE_FILE

    present = files.names()
    dot = "." if f".{MANIFEST}" in present else ""  # of a WebDataset, whose samples have plain names
    manifest = _read(files, f"{dot}{MANIFEST}")
    rows = parse_rows(manifest)
    records = [f"{dot}{MANIFEST}", f"{dot}{CERTIFICATE_FILE}"]
    if IMAGES_ARRAY in present:
        _compare_names(present, Counter([*records, *ARRAYS]), findings)
        findings.problems += check_arrays(files, rows)
    else:
        expected = [entry for row in rows for entry in named_files(row, has_fields=bool(dot))]
        _compare_names(present, Counter([*records, *(entry.name for entry in expected)]), findings)
        for entry in expected:
            _check_file(files, entry, findings)
    if not findings.problems:
        findings.facts.append(f"{len(rows)} images, each as the manifest says")
    try:
        content = _read(files, f"{dot}{CERTIFICATE_FILE}")
    except ArchiveCorruptedError as error:
        findings.problems.append(f"{error}: nothing says who made these files")
        return
    certificate = _read_certificate(content, trusted, findings)
    if certificate is not None:
        _check_against(certificate, hashlib.sha256(manifest).hexdigest(), rows, findings)


def _check_table(path: Path, trusted: "Ed25519PublicKey | None", findings: Findings) -> None:
    """Rows stand in the place of a manifest: the certificate names the digests of all images, in order."""
    from model_store.certificate import CERTIFICATE_FILE

    rows, content, problems = read_table(path, CERTIFICATE_FILE)
    findings.problems += problems
    certificate = _read_certificate(content, trusted, findings)
    if certificate is not None:
        _check_against(certificate, None, rows, findings)


def _read_certificate(
    content: bytes, trusted: "Ed25519PublicKey | None", findings: Findings
) -> "Certificate | None":
    from model_store.certificate import CertificateInvalidError, read_certificate

    try:
        certificate = read_certificate(content, trusted)
    except CertificateInvalidError as error:
        findings.problems.append(str(error))
        return None
    mix = ", ".join(f"{made.n} {slug}" for slug, made in sorted(certificate.classes.items()))
    model = certificate.model
    findings.facts += [
        f"{mix} of {model.name}@{model.version} (seed {certificate.seed}), job {certificate.job}, "
        f"{certificate.issued_at:%Y-%m-%d %H:%M:%S} UTC",
        certificate.statement,
        f"signed by key {certificate.key.id}"
        + (", the one given" if trusted else "; nothing here says whose it is: pin it with --key"),
    ]
    return certificate


def _check_against(
    certificate: "Certificate", manifest_sha256: str | None, rows: list[dict[str, Any]], findings: Findings
) -> None:
    """Whether the certificate is of these images. manifest_sha256: None where there is no manifest."""
    from model_store.certificate import RunningDigest

    images, pixels = RunningDigest(), RunningDigest()
    for row in rows:
        images.add(row["sha256"])
        pixels.add(row["pixels_sha256"])
    made = {slug: each.n for slug, each in certificate.classes.items()}
    for what, certified, found in (
        ("manifest_sha256", certificate.manifest_sha256, manifest_sha256 or certificate.manifest_sha256),
        ("images_sha256", certificate.images_sha256, images.hexdigest),
        ("pixels_sha256", certificate.pixels_sha256, pixels.hexdigest),
        ("classes", made, dict(Counter(row["class_slug"] for row in rows))),
        ("seed", {certificate.seed}, {row["seed"] for row in rows}),
        ("model digest", {certificate.model.digest}, {row["checkpoint_digest"] for row in rows}),
    ):
        if certified != found:
            findings.problems.append(f"{what}: the certificate is not of these files, but of others")
            return
    findings.facts.append("the certificate is of these images")


def _compare_names(present: list[str], named: "Counter[str]", findings: Findings) -> None:
    there = Counter(present)
    for name in sorted((there - named).keys()):
        reason = "there twice" if name in named else "not named by the manifest"
        findings.problems.append(f"{name}: {reason}")
    for name in sorted(name for name, count in named.items() if count > 1):
        findings.problems.append(f"{name}: named twice by the manifest")


def _check_file(files: SealedFiles, expected: NamedFile, findings: Findings) -> None:
    name = expected.name
    try:
        with files.open(name) as file:
            digest, size_bytes = hashlib.sha256(), 0
            while size_bytes <= expected.size_bytes and (block := file.read(_BLOCK_BYTES)):
                digest.update(block)
                size_bytes += len(block)
    except KeyError:
        findings.problems.append(f"{name}: named by the manifest, but not there")
    except Exception as error:  # what reading a damaged archive raises is no small set
        findings.problems.append(f"{name}: cannot be read ({error})")
    else:
        if size_bytes != expected.size_bytes or digest.hexdigest() != expected.sha256:
            findings.problems.append(f"{name}: it is not what the manifest says")


def _read(files: SealedFiles, name: str) -> bytes:
    """Raises ArchiveCorruptedError."""
    try:
        with files.open(name) as file:
            content = file.read(_MAX_RECORD_BYTES + 1)
    except KeyError:
        raise ArchiveCorruptedError(name, "not there") from None
    except Exception as error:  # as above
        raise ArchiveCorruptedError(name, f"cannot be read ({error})") from error
    if len(content) > _MAX_RECORD_BYTES:
        raise ArchiveCorruptedError(name, f"more than {_MAX_RECORD_BYTES} bytes")
    return content
