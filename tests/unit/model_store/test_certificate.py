"""A signature holds for what was signed, and for nothing else."""

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from model_store.canonical_json import canonical_json
from model_store.certificate import (
    CertificateInvalidError,
    RunningDigest,
    described_key,
    key_id,
    parse_public_key,
    raw_public_key,
    read_certificate,
    sign,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def body(**changes: Any) -> dict[str, Any]:
    """Of a certificate of two images."""
    made = {"n": 2, "rejected": 1, "rejections": {"luma": 1}, "acceptance_ratio": 0.666667, "quality": None}
    return {
        "version": 1,
        "statement": "All are synthetic.",
        "software": "masan 0.1.0",
        "job": "job_x",
        "issued_at": "2026-01-02T03:04:05.678Z",
        "attempt": 1,
        "model": {"name": "tiny", "version": "1", "digest": "a" * 64},
        "n": 2,
        "seed": str(2**64 - 1),
        "truncation": 0.7,
        "encoding": {"format": "png", "quality": None},
        "gate": "default",
        "classes": {"pro_b": made},
        "report_at": None,
        "quality_reason": "tiny@1 has no quality report",
        "manifest_sha256": "b" * 64,
        "images_sha256": "c" * 64,
        "pixels_sha256": "d" * 64,
        "shards": ["e" * 64],
        "devices": ["cpu"],
        "torch_versions": ["2"],
        **changes,
    }


CONTENT = sign(body(), KEY)


def test_signed_certificate_is_read_back() -> None:
    certificate = read_certificate(CONTENT, KEY.public_key())

    assert (certificate.n, certificate.seed) == (2, str(2**64 - 1))
    assert certificate.key.id == key_id(KEY.public_key())


def test_signature_is_of_the_canonical_bytes_without_it() -> None:
    """What a reader with any Ed25519 library has to do, spelled out."""
    whole = json.loads(CONTENT)
    signature = base64.b64decode(whole.pop("signature")["value"])

    KEY.public_key().verify(signature, canonical_json(whole))

    assert canonical_json(json.loads(CONTENT)) == CONTENT


def test_same_body_gives_the_same_bytes() -> None:
    assert sign(body(), KEY) == CONTENT


def test_layout_does_not_matter() -> None:
    spread = json.dumps(json.loads(CONTENT), indent=4).encode()

    assert read_certificate(spread, KEY.public_key()) == read_certificate(CONTENT)


@pytest.mark.parametrize(
    ("member", "value"), [("n", 3), ("seed", "1"), ("gate", "strict"), ("devices", []), ("job", "job_y")]
)
def test_changed_member_is_noticed(member: str, value: object) -> None:
    changed = json.dumps(json.loads(CONTENT) | {member: value}).encode()

    with pytest.raises(CertificateInvalidError, match="signature does not hold"):
        read_certificate(changed)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_no_changed_byte_passes(at: int, flip: int) -> None:
    changed = bytearray(CONTENT)
    changed[at] ^= flip

    with pytest.raises(CertificateInvalidError):
        read_certificate(bytes(changed), KEY.public_key())


@given(st.binary(max_size=300))
def test_any_bytes_are_judged(content: bytes) -> None:
    with pytest.raises(CertificateInvalidError):
        read_certificate(content)


def test_certificate_of_another_key_is_refused() -> None:
    with pytest.raises(CertificateInvalidError, match=f"not with {key_id(OTHER.public_key())}"):
        read_certificate(CONTENT, OTHER.public_key())


def test_borrowed_key_id_is_refused() -> None:
    whole = json.loads(sign(body(), OTHER))
    whole["key"]["id"] = key_id(KEY.public_key())

    with pytest.raises(CertificateInvalidError, match="not the id"):
        read_certificate(canonical_json(whole))


def test_body_that_is_no_certificate_is_not_signed() -> None:
    with pytest.raises(ValueError, match="truncation"):
        sign(body(truncation=2), KEY)


def test_public_key_is_read_from_base64_and_from_pem() -> None:
    public = KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    assert parse_public_key(described_key(public).public_key) == public
    assert parse_public_key(pem) == public


def test_key_id_is_the_head_of_the_keys_sha256() -> None:
    public = KEY.public_key()

    assert key_id(public) == hashlib.sha256(raw_public_key(public)).hexdigest()[:16]


def test_what_is_no_ed25519_key_is_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    for text in ("", "AAAA", "not base64", pem, "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(ValueError):
            parse_public_key(text)


def test_running_digest_is_of_the_raw_digests() -> None:
    digest = RunningDigest()
    for sha256 in ("00" * 32, "ff" * 32):
        digest.add(sha256)

    assert digest.hexdigest == hashlib.sha256(bytes(32) + b"\xff" * 32).hexdigest()
