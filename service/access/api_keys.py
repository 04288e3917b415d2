"""The file of API keys: one JSON object a line, each key as its sha256 alone.

A key is `mk_` and 256 random bits, so that one round of sha256 is enough: there is nothing to guess.
"""

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from model_store.manifest import Sha256
from service.errors import ServiceError

KEY_PREFIX = "mk_"
_KEY_BYTES = 32
_FILE_MODE = 0o600


class Scope(StrEnum):
    """What a key may be used for; `admin` includes the others."""

    GENERATE = "generate"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    MODELS_PROMOTE = "models:promote"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much one key may ask for; None: as much as it likes."""

    requests_per_minute: int | None = None
    images_per_day: int | None = None
    max_active_jobs: int | None = None


NO_LIMITS = KeyLimits()
_Limit = Annotated[int, Field(ge=1, le=10**9)]


class ApiKey(BaseModel):
    """One line of the keys file: the key itself is not kept, only its sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Sha256
    scopes: frozenset[Scope]
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    images_per_day: _Limit | None = None
    requests_per_minute: _Limit | None = None
    max_active_jobs: _Limit | None = None

    @property
    def limits(self) -> KeyLimits:
        return KeyLimits(self.requests_per_minute, self.images_per_day, self.max_active_jobs)

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`. now: epoch seconds."""
        if self.revoked_at is not None:
            return "revoked"
        expired = self.expires_at is not None and now >= self.expires_at.timestamp()
        return "expired" if expired else "active"


class KeysFileError(ServiceError):
    """A keys file that cannot be read or changed; the message tells the line, never its content."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path}: {reason}")


class KeyChangeError(ServiceError, ValueError):
    """A key that cannot be made or revoked as asked."""


def hash_key(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """All keys of a file, in its order. Raises KeysFileError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysFileError(path, f"cannot be read: {error}") from error
    return tuple(_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip())


def create_key(path: Path, make: Callable[[str], ApiKey], now: float) -> str:
    """Add a key to the file, which is made if it is not there, and return it: it is kept nowhere else.

    make: the line for a key's sha256. now: epoch seconds. A new key may take the id of one that was revoked
    or has expired, and with it its jobs. Raises KeyChangeError for an id in use, KeysFileError.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    line = make(hash_key(key))
    with _locked(path):
        present = read_keys(path) if path.exists() else ()
        if any(other.id == line.id and other.state(now) == "active" for other in present):
            raise KeyChangeError(f"id {line.id!r} has an active key in {path}; revoke it first")
        _write(path, (*present, line))
    return key


def revoke_key(path: Path, key_id: str, now: float) -> None:
    """Mark the keys of an id as revoked. Raises KeyChangeError if it has none that is not, KeysFileError."""
    with _locked(path):
        present = read_keys(path)
        at = datetime.fromtimestamp(now, UTC)
        changed = tuple(
            key.model_copy(update={"revoked_at": at}) if key.id == key_id and not key.revoked_at else key
            for key in present
        )
        if changed == present:
            known = ", ".join(sorted({key.id for key in present if not key.revoked_at})) or "none"
            raise KeyChangeError(f"id {key_id!r} has no key to revoke in {path}; there are: {known}")
        _write(path, changed)


def _parse(path: Path, number: int, line: str) -> ApiKey:
    try:
        return ApiKey.model_validate(json.loads(line))
    except ValidationError as error:
        wrong = ", ".join(sorted({str(item["loc"][0]) for item in error.errors() if item["loc"]}))
        reason = f"line {number} is no {{id, sha256, scopes}} object" + (f"; see {wrong}" if wrong else "")
        raise KeysFileError(path, reason) from None
    except (ValueError, RecursionError):
        raise KeysFileError(path, f"line {number} is no {{id, sha256, scopes}} object") from None


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file as a whole, readable by its owner alone."""
    rows = [key.model_dump(mode="json", exclude_none=True) for key in keys]
    content = "".join(json.dumps(row | {"scopes": sorted(row["scopes"])}) + "\n" for row in rows)
    aside = None
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), _FILE_MODE)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except OSError as error:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
        raise KeysFileError(path, f"cannot be written: {error.strerror}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold other commands off while the file is read, changed and replaced, by a lock on its folder."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeysFileError(path, f"its folder cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
