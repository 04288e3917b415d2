"""A batch's certificate: what was made, how it was judged, which files it covers; signed with Ed25519.

Signed are the bytes of the certificate without its member `signature`, as canonical JSON (RFC 8785).
Whoever trusts the key can check it without us and without a network. Torch-free.
"""

import base64
import binascii
import hashlib
from typing import Annotated, Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from model_store.canonical_json import canonical_json, parse_strict
from model_store.errors import ModelStoreError
from model_store.manifest import Sha256, Slug, Version
from model_store.report_figures import Count, Distance, Ratio

CERTIFICATE_FILE: Final = "certificate.json"
"""Its name in every archive."""
STATEMENT: Final = "All images of this batch are synthetic. None shows a patient; none is for diagnosis."
ALGORITHM: Final = "Ed25519"
_KEY_ID_DIGITS: Final = 16
_PUBLIC_KEY_BYTES: Final = 32

_Total = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class CertifiedModel(_Frozen):
    """The checkpoint that drew all images of the batch."""

    name: Slug
    version: Version
    digest: Sha256


class CertifiedEncoding(_Frozen):
    """How pixels became files. quality: of a lossy encoding."""

    format: str
    quality: int | None


class JudgedFigures(_Frozen):
    """A class under one feature extractor, from the checkpoint's report; never compare across extractors.

    floor: what two halves of the real images score at `floor_n` a side. reference_digest: of the real images.
    """

    extractor: str
    extractor_sha256: Sha256
    reference_digest: Sha256
    n_real: Count
    n_fake: Count
    frechet_distance: Distance
    floor: Distance
    floor_n: Count
    kid: float
    kid_sd: Distance
    kid_floor: float | None
    coverage: Ratio | None
    recall: Ratio | None


class ClassQuality(_Frozen):
    """What the checkpoint's report says of a class: of `checked_n` images of its own, not of this batch."""

    figures: tuple[JudgedFigures, ...]
    checked_n: int | None
    label_agreement_ratio: Ratio | None
    memorized_ratio: Ratio | None
    scale_bar_ratio: Ratio | None


class CertifiedClass(_Frozen):
    """Images of one class. rejected: those the gate replaced, before the `n` delivered ones were found.

    acceptance_ratio: delivered over drawn. quality: None where `quality_reason` of the certificate says why.
    """

    n: Annotated[int, Field(ge=1)]
    rejected: _Total
    rejections: dict[str, _Total]
    acceptance_ratio: Ratio
    quality: ClassQuality | None


class CertifiedKey(_Frozen):
    """The key that signed: its id is the first 16 hex digits of the sha256 of the raw public key."""

    id: str
    algorithm: Literal["Ed25519"]
    public_key: str


class Signature(_Frozen):
    """value: base64 of the 64 bytes of RFC 8032."""

    algorithm: Literal["Ed25519"]
    value: str


class Certificate(_Frozen):
    """What a signed certificate says.

    attempt: how often the job was begun. walk_to_seed: of a walk alone. issued_at: when the job had
    succeeded. manifest_sha256: of the job's `manifest.jsonl`. images_sha256, pixels_sha256: over the raw
    sha256 of all files, and of all images' pixels, in the manifest's order. shards: sha256 of each shard.
    report_at: when the report was made whose figures stand at the classes.
    """

    version: Literal[1]
    statement: str
    software: str
    job: str
    issued_at: AwareDatetime
    attempt: Annotated[int, Field(ge=1)]
    model: CertifiedModel
    n: Annotated[int, Field(ge=1)]
    seed: str
    truncation: Annotated[float, Field(gt=0, le=1)]
    walk_to_seed: str | None = None
    encoding: CertifiedEncoding
    gate: str
    classes: Annotated[dict[Slug, CertifiedClass], Field(min_length=1)]
    report_at: AwareDatetime | None
    quality_reason: str | None
    manifest_sha256: Sha256
    images_sha256: Sha256
    pixels_sha256: Sha256
    shards: tuple[Sha256, ...]
    devices: tuple[str, ...]
    torch_versions: tuple[str, ...]
    key: CertifiedKey
    signature: Signature


class CertificateInvalidError(ModelStoreError):
    """A certificate that proves nothing; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"certificate: {reason}")


class RunningDigest:
    """sha256 over raw sha256 digests, in the order in which they are added."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, sha256: str) -> None:
        """sha256: hex."""
        self._digest.update(bytes.fromhex(sha256))

    @property
    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def raw_public_key(key: Ed25519PublicKey) -> bytes:
    """32 bytes, as RFC 8032 has it."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(key: Ed25519PublicKey) -> str:
    """What people compare: the first 16 hex digits of the sha256 of the raw key."""
    return hashlib.sha256(raw_public_key(key)).hexdigest()[:_KEY_ID_DIGITS]


def described_key(key: Ed25519PublicKey) -> CertifiedKey:
    """The key as certificates and the service show it."""
    public_key = base64.b64encode(raw_public_key(key)).decode()
    return CertifiedKey(id=key_id(key), algorithm=ALGORITHM, public_key=public_key)


def parse_public_key(text: str) -> Ed25519PublicKey:
    """From base64 of the raw key, or from PEM. Raises ValueError."""
    if "-----BEGIN" in text:
        key = load_pem_public_key(text.strip().encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("the PEM file holds a key of another algorithm than Ed25519")
        return key
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _PUBLIC_KEY_BYTES:
        raise ValueError("a public key is 32 bytes in base64, or a PEM file")
    return Ed25519PublicKey.from_public_bytes(raw)


def sign(body: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    """The signed certificate of `body`, which has all its members but `key` and `signature`.

    Raises ValueError for a body that is no certificate.
    """
    signed = body | {"key": described_key(key.public_key()).model_dump()}
    value = base64.b64encode(key.sign(canonical_json(signed))).decode()
    whole = signed | {"signature": {"algorithm": ALGORITHM, "value": value}}
    Certificate.model_validate(whole)
    return canonical_json(whole)


def read_certificate(content: bytes, trusted: Ed25519PublicKey | None = None) -> Certificate:
    """What a certificate says, if its signature holds.

    trusted: the key it must be signed with; without one the certificate's own key is taken, so that it proves
    only that nothing was changed since. Raises CertificateInvalidError.
    """
    try:
        whole = parse_strict(content)
        certificate = Certificate.model_validate(whole)
        key = parse_public_key(certificate.key.public_key)
        signature = base64.b64decode(certificate.signature.value, validate=True)
        signed = canonical_json({name: value for name, value in whole.items() if name != "signature"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise CertificateInvalidError(f"{where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise CertificateInvalidError(f"it cannot be read: {error}") from error
    if certificate.key.id != key_id(key):
        raise CertificateInvalidError(f"key {certificate.key.id} is not the id of the key it names")
    if trusted is not None and raw_public_key(trusted) != raw_public_key(key):
        raise CertificateInvalidError(f"signed with key {key_id(key)}, not with {key_id(trusted)}")
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        raise CertificateInvalidError("its signature does not hold: it was changed after signing") from None
    return certificate
