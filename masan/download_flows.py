"""Fetching files: streamed to disk, gone on with where they broke off, held against their digest."""

import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urljoin

import httpx

from masan.asking import Patience, Session, ask, checked, pause_after_loss, pause_after_refusal
from masan.errors import ApiError, ArchiveCorruptedError, OutputFolderError
from masan.exchange import Ask, Do, Flow, Open, ReadBlock, ReadRest

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REPR_DIGEST: Final = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")
_QUOTED_SHA256: Final = re.compile(r'"([0-9a-f]{64})"')
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")

OnBytes = Callable[[int, int | None], None]
"""Takes how many bytes are there, and of how many if that is known."""
Check = Callable[[Path], object]
"""Raises ArchiveCorruptedError for a file that is not what it should be."""


@dataclass(frozen=True, slots=True)
class FileRequest:
    """What to fetch, and where to. sha256: hex, if it is known. check: of the whole file."""

    url: str
    path: Path
    sha256: str | None = None
    check: Check = lambda _path: None
    on_bytes: OnBytes = lambda _done, _total: None


@dataclass(slots=True)
class _Part:
    """A download that has begun: `PATH.part`, and beside it what is needed to go on with it."""

    path: Path
    url: str
    etag: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, request: FileRequest) -> Self:
        """The one that an earlier attempt left, if it is of the same file; else a new one."""
        part = cls(request.path.with_name(f"{request.path.name}.part"), request.url, sha256=request.sha256)
        try:
            note = json.loads(part._note.read_text())
        except (OSError, ValueError):
            note = {}
        if isinstance(note, dict) and note.get("url") == request.url and part.path.exists():
            part.etag = note.get("etag")
            part.sha256 = request.sha256 or note.get("sha256")
        else:
            part.remove()
        return part

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        """Bytes that can be kept: those whose ETag is known."""
        return self.path.stat().st_size if self.etag and self.path.exists() else 0

    def keep(self, etag: str | None, sha256: str | None) -> None:
        """Note what the bytes to come belong to. A weak tag promises nothing about bytes."""
        self.etag = etag if etag and not etag.startswith("W/") else None
        self.sha256 = sha256 or self.sha256
        fields = asdict(self)
        self._note.write_text(json.dumps({name: fields[name] for name in ("url", "etag", "sha256")}))

    def remove(self) -> None:
        """Drop it; the next attempt begins at the first byte."""
        self.etag = None
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def download(session: Session, request: FileRequest) -> Flow[Path]:
    """Fetch a file whole or not at all; what is there of an earlier attempt is gone on with.

    A broken attempt leaves `PATH.part` and a note beside it; success and damage leave neither.
    Raises ArchiveCorruptedError, ApiError, ServerUnreachableError, OutputFolderError.
    """
    if request.path.is_dir():
        raise OutputFolderError(f"{request.path} is a folder; name a file")
    request.path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part.of(request)
    patience = Patience(session)
    while True:
        before = part.size
        try:
            if (yield from _receive(session, request, part)):
                break
        except httpx.TransportError as error:
            if part.size > before:
                patience.renew()
            yield pause_after_loss(session, patience, error)
        except ApiError as error:
            yield pause_after_refusal(patience, error)
    try:
        yield Do(lambda: _check(part, request))
    except ArchiveCorruptedError:
        part.remove()
        raise
    part.path.replace(request.path)
    part.remove()
    return request.path


def _receive(session: Session, request: FileRequest, part: _Part) -> Flow[bool]:
    """One attempt at what is missing; whether the file is whole now."""
    have = part.size
    resume = {"Range": f"bytes={have}-", "If-Range": part.etag} if have and part.etag else {}
    headers = {"Accept-Encoding": "identity", **resume}
    response: httpx.Response = yield Open(Ask("GET", part.url, headers=headers))
    session.was_answered = True
    is_sent_on = response.status_code in _REDIRECTS and "Location" in response.headers
    if is_sent_on:
        if part.sha256 is None:
            # The store that is about to send the file does not know our digest of it.
            part.sha256 = digest_of((yield from ask(session, Ask("HEAD", part.url))))
        target = _local(session, urljoin(f"{session.base_url}{part.url}", response.headers["Location"]))
        response = yield Open(Ask("GET", target, headers=headers))
    if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
        return _is_whole(part, response)
    if response.is_error:
        yield ReadRest()
    checked(response)
    start = _start_of(response) if have else 0
    if start not in {0, have}:
        part.remove()  # the next attempt asks for all of it
        return False
    if not start:
        part.remove()
        # The tag of another store is no digest of ours.
        part.keep(response.headers.get("ETag"), None if is_sent_on else digest_of(response))
    length = response.headers.get("Content-Length", "")
    done = start or 0
    total = done + int(length) if length.isdecimal() else None
    with part.path.open("ab") as file:
        while block := (yield ReadBlock()):
            file.write(block)
            done += len(block)
            request.on_bytes(done, total)
    return True


def _local(session: Session, url: str) -> str:
    """The path, if it is a URL of the server itself: others are sent no key."""
    base = f"{session.base_url}/"
    return f"/{url.removeprefix(base)}" if url.startswith(base) else url


def _start_of(response: httpx.Response) -> int | None:
    """The place of the body's first byte in the file; None for a part that does not say which."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return None if match is None or match[1] is None else int(match[1])


def _is_whole(part: _Part, response: httpx.Response) -> bool:
    """There is nothing after what we have: it is all, or it is of another file and dropped."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is not None and int(match[2]) == part.size:
        return True
    part.remove()
    return False


def digest_of(response: httpx.Response) -> str | None:
    """Hex sha256 of the whole, from Repr-Digest or an ETag that is one."""
    if match := _REPR_DIGEST.search(response.headers.get("Repr-Digest", "")):
        return b64decode(match[1]).hex()
    match = _QUOTED_SHA256.fullmatch(response.headers.get("ETag", ""))
    return match[1] if match else None


def _check(part: _Part, request: FileRequest) -> None:
    if part.sha256 is not None:
        with part.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != part.sha256:
            raise ArchiveCorruptedError(
                request.path.name, f"its sha256 is {found[:16]}..., not {part.sha256[:16]}..."
            )
    request.check(part.path)


def content(session: Session, request: Ask) -> Flow[bytes]:
    """A small file, held against its digest if one is told. Raises ArchiveCorruptedError, ApiError."""
    response = yield from ask(session, request)
    expected = digest_of(response)
    if expected is not None and hashlib.sha256(response.content).hexdigest() != expected:
        raise ArchiveCorruptedError(request.url, "its sha256 is not the one that the server tells")
    return response.content
