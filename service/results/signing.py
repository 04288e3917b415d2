"""The key that signs certificates: made at the first start, kept in a file that its owner alone can read."""

import os
import secrets
import stat
import threading
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from model_store.certificate import CertifiedKey, described_key, sign
from service.errors import SettingsError

VARIABLE = "MASAN_SIGNING_KEY_FILE"
_MAX_FILE_BYTES = 16_384


class SigningKey:
    """The Ed25519 key in `path` (PEM, PKCS8); opened, and made if it is not there, at its first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def check(self) -> None:
        """Open the key. Raises SettingsError."""
        with self._lock:
            _ = self._private

    def sign(self, body: dict[str, object]) -> bytes:
        """A signed certificate; see model_store.certificate. Raises SettingsError, ValueError."""
        self.check()
        return sign(body, self._private)

    @property
    def public(self) -> CertifiedKey:
        """Raises SettingsError."""
        self.check()
        return described_key(self._private.public_key())

    @property
    def public_pem(self) -> str:
        """Raises SettingsError."""
        self.check()
        public = self._private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        try:
            path = self._path.expanduser()
            if not path.exists():
                _create(path)
            return _read(path)
        except (OSError, RuntimeError) as error:  # RuntimeError: `~` without a home
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                VARIABLE, f"= {str(self._path)!r}: no key can be made or read there: {reason}"
            ) from error


def _create(path: Path) -> None:
    """Write a new key aside and link it to its place: of several processes, one key remains for all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first
            path.hardlink_to(aside)
    finally:
        aside.unlink()


def _read(path: Path) -> Ed25519PrivateKey:
    """A mounted secret belongs to root and is read by its group; a file of our own is for us alone."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        forbidden = 0o077 if status.st_uid == os.geteuid() else 0o007
        if stat.S_IMODE(status.st_mode) & forbidden:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise SettingsError(VARIABLE, f"= {str(path)!r}: others may read it (mode {mode}); run chmod 600")
        content = file.read(_MAX_FILE_BYTES)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:  # TypeError: encrypted
        raise SettingsError(VARIABLE, f"= {str(path)!r}: no unencrypted PEM key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(VARIABLE, f"= {str(path)!r}: a key of another algorithm than Ed25519")
    return key
