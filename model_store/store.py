"""Where checkpoints live: a store that publishes atomically and verifies what it reads. Torch-free."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from model_store.errors import (
    ManifestInvalidError,
    ModelAlreadyPublishedError,
    ModelNotFoundError,
    ModelStoreError,
    NoEarlierVersionError,
    WeightsCorruptedError,
)
from model_store.file_store import FileStore
from model_store.manifest import FileEntry, Manifest, Slug, Version

PRODUCTION = "production"
MANIFEST_FILE = "manifest.json"
REPORTS_FOLDER = "reports"
"""Of a version: reports made after it was published, and their index."""

ModelT = TypeVar("ModelT", bound=BaseModel)

_SLUG: TypeAdapter[str] = TypeAdapter(Slug)
_VERSION: TypeAdapter[str] = TypeAdapter(Version)


@dataclass(frozen=True)
class Checkpoint:
    """A published manifest and the folder (below the store's root) its files lie in."""

    manifest: Manifest
    folder: str

    @property
    def reference(self) -> str:
        """`name@version`."""
        return self.manifest.reference

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of what determines an image; see `Manifest.digest`."""
        return self.manifest.digest


class AliasChange(BaseModel):
    """One line of an alias's history; `previous` is what the alias named before.

    overridden: what the quality gate had against a promotion that was forced; reason: why it was forced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["promote", "rollback"]
    alias: Slug
    version: Version
    previous: Version | None
    at: AwareDatetime
    overridden: tuple[str, ...] = ()
    reason: str = ""


class AliasMovedError(ModelStoreError):
    """The alias names another version than the caller looked at; `current` is None where it names none."""

    def __init__(self, name: str, alias: str, current: str | None) -> None:
        self.current = current
        super().__init__(f"{name}@{alias} has just been changed: it names {current or 'nothing'}; try again")


class _Aliases(BaseModel):
    """Content of `aliases.json`: what every alias names now, and every change that led there."""

    model_config = ConfigDict(extra="forbid")

    aliases: dict[Slug, Version] = {}
    history: list[AliasChange] = []

    def change(
        self,
        action: Literal["promote", "rollback"],
        alias: str,
        version: str,
        override: "Override | None" = None,
    ) -> None:
        change = AliasChange(
            action=action,
            alias=alias,
            version=version,
            previous=self.aliases.get(alias),
            at=datetime.now(UTC),
            overridden=override.gates if override else (),
            reason=override.reason if override else "",
        )
        self.history.append(change)
        self.aliases[alias] = version

    def version_before(self, alias: str) -> str | None:
        """Where a rollback leads: each one a step further back, so the history is replayed as a stack."""
        stack: list[str] = []
        for change in self.history:
            if change.alias != alias:
                continue
            if change.action == "promote":
                stack.append(change.version)
            else:
                stack.pop()
        return stack[-2] if len(stack) > 1 else None


class _AttachedReports(BaseModel):
    """Content of `reports/index.json`: reports made after publication, oldest first."""

    model_config = ConfigDict(extra="forbid")

    reports: list[FileEntry] = []


@dataclass(frozen=True, slots=True)
class Override:
    """Why a promotion went ahead although `gates` spoke against it; kept in the alias's history."""

    gates: tuple[str, ...]
    reason: str


class ModelStore:
    """Immutable checkpoints by name and version, and aliases that name one of them.

    `url` is a local path or anything fsspec opens. Below it lie `{name}/aliases.json` and
    `{name}/versions/{version}/{manifest.json, weights.safetensors, report.json...}`.
    A version exists once its manifest does. Everything read is checked against the manifest, or, for reports
    made later, against the index in the version's `reports/`.
    """

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that nothing installed can open."""
        self.url = url
        self._files = FileStore(url)

    def names(self) -> tuple[str, ...]:
        """Names of all models, sorted."""
        return tuple(name for name in self._files.folders() if self.versions(name))

    def versions(self, name: str) -> tuple[str, ...]:
        """Published versions of a model, oldest first as people number them (2 before 10)."""
        if not _is_valid(_SLUG, name):
            return ()
        published = (
            version
            for version in self._files.folders(f"{name}/versions")
            if self._files.exists(f"{name}/versions/{version}/{MANIFEST_FILE}")
        )
        return tuple(sorted(published, key=_version_order))

    def checkpoints(self) -> Iterator[Checkpoint]:
        """Every published checkpoint, by name, then version. Raises ManifestInvalidError."""
        for name in self.names():
            for version in self.versions(name):
                yield self._open(name, version)

    def resolve(self, reference: str) -> Checkpoint:
        """The checkpoint a reference names.

        `name@x` is the version x, else what the alias x names. A plain `name` is what its alias `production`
        names, else its newest version. Raises ModelNotFoundError, ManifestInvalidError.
        """
        name, separator, wanted = reference.partition("@")
        versions = self.versions(name)
        if not versions:
            raise ModelNotFoundError(reference, self.names())
        aliases = self.aliases(name)
        if not separator:
            return self._open(name, aliases.get(PRODUCTION, versions[-1]))
        version = wanted if wanted in versions else aliases.get(wanted)
        if version not in versions:
            raise ModelNotFoundError(reference, _references(name, (*versions, *aliases)))
        return self._open(name, version)

    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version. Raises ManifestInvalidError for a damaged alias file."""
        return dict(self._read_aliases(name).aliases) if _is_valid(_SLUG, name) else {}

    def check_alias(self, name: str, alias: str) -> None:
        """Raises ValueError for what cannot be an alias of the model."""
        if not _is_valid(_SLUG, alias) or alias in self.versions(name):
            raise ValueError(f"alias {alias!r} must be lower-case letters, digits, _ or -, and no version")

    def history(self, name: str) -> tuple[AliasChange, ...]:
        """Every promotion and rollback of a model, oldest first. Raises ManifestInvalidError."""
        return tuple(self._read_aliases(name).history) if _is_valid(_SLUG, name) else ()

    def check_free(self, name: str, version: str) -> None:
        """For a publisher with long work to do first, who may still lose a race.

        Raises ValueError for what cannot be a name or a version, ModelAlreadyPublishedError.
        """
        if not _is_valid(_SLUG, name):
            raise ValueError(f"name {name!r} is not 1 to 64 lower-case letters, digits, _ or -")
        if not _is_valid(_VERSION, version):
            raise ValueError(f"version {version!r} is not 1 to 64 letters, digits, ., _ or -")
        if version in self.versions(name):
            raise ModelAlreadyPublishedError(name, version)

    def publish(self, manifest: Manifest, files: Mapping[str, bytes]) -> Checkpoint:
        """Add a version, whole or not at all. `files` holds exactly the files the manifest names.

        Raises ManifestInvalidError if they are others, ModelAlreadyPublishedError if the version exists, also
        for all but one of several racing publishers.
        """
        folder = _folder(manifest.name, manifest.version)
        entries = {entry.path: entry for entry in (manifest.weights, *manifest.reports)}
        if entries.keys() != files.keys():
            raise ManifestInvalidError(folder, f"it names {sorted(entries)}, but was given {sorted(files)}")
        for path, entry in entries.items():
            if reason := _mismatch(entry, files[path]):
                raise ManifestInvalidError(folder, f"{path}: {reason}")
        if self._files.exists(f"{folder}/{MANIFEST_FILE}"):
            raise ModelAlreadyPublishedError(manifest.name, manifest.version)
        content = {path: files[path] for path in sorted(files)}
        content[MANIFEST_FILE] = manifest.model_dump_json(indent=2).encode() + b"\n"
        try:
            self._files.create_folder(folder, content)
        except FileExistsError:
            raise ModelAlreadyPublishedError(manifest.name, manifest.version) from None
        return Checkpoint(manifest, folder)

    def read_file(self, checkpoint: Checkpoint, path: str) -> bytes:
        """A file the manifest names, verified. Raises ModelNotFoundError, WeightsCorruptedError."""
        entries = {entry.path: entry for entry in (checkpoint.manifest.weights, *checkpoint.manifest.reports)}
        if path not in entries:
            raise ModelNotFoundError(f"{checkpoint.reference}/{path}", tuple(entries))
        return self._read_verified(checkpoint.folder, entries[path])

    def attach_report(self, checkpoint: Checkpoint, content: bytes) -> FileEntry:
        """Keep a report made after publication beside the checkpoint, whose manifest stays as it is.

        It is the newest from now on, also if the same bytes were attached before. Reports lie under their
        sha256 in `reports/`, so that a writer that dies leaves the index as it was.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        entry = FileEntry(path=f"{sha256}.json", sha256=sha256, size_bytes=len(content))
        index = _reports_index(checkpoint)
        with self._files.lock(index):
            attached = self._read_attached(checkpoint)
            self._files.replace(f"{checkpoint.folder}/{REPORTS_FOLDER}/{entry.path}", content)
            reports = [other for other in attached.reports if other != entry]
            content = _AttachedReports(reports=[*reports, entry]).model_dump_json(indent=2).encode()
            self._files.replace(index, content + b"\n")
        return entry

    def attached_reports(self, checkpoint: Checkpoint) -> tuple[FileEntry, ...]:
        """Reports made after publication, newest first. Raises ManifestInvalidError for a damaged index."""
        return tuple(reversed(self._read_attached(checkpoint).reports))

    def read_attached(self, checkpoint: Checkpoint, entry: FileEntry) -> bytes:
        """Bytes of an attached report, verified. Raises WeightsCorruptedError."""
        return self._read_verified(f"{checkpoint.folder}/{REPORTS_FOLDER}", entry)

    def promote(
        self,
        name: str,
        version: str,
        alias: str = PRODUCTION,
        *,
        override: Override | None = None,
        expected: str | Literal[False] | None = False,
    ) -> None:
        """Let an alias name a version from now on. The quality gate stands in `model_store.promotion`.

        expected: the version (None: none) that the alias must still name; False: whichever.
        Raises ModelNotFoundError for an unknown version, ValueError for what cannot be an alias,
        AliasMovedError if the alias names another version than expected.
        """
        versions = self.versions(name)
        if version not in versions:
            raise ModelNotFoundError(f"{name}@{version}", _references(name, versions) or self.names())
        self.check_alias(name, alias)
        with self._files.lock(_aliases_path(name)):
            aliases = self._read_aliases(name)
            current = aliases.aliases.get(alias)
            if expected is not False and current != expected:
                raise AliasMovedError(name, alias, current)
            if current != version:
                aliases.change("promote", alias, version, override)
                self._write_aliases(name, aliases)

    def rollback(self, name: str, alias: str = PRODUCTION) -> str:
        """Let an alias name what it named before its last promotion; returns that version.

        Raises ModelNotFoundError; NoEarlierVersionError if there is nothing to go back to.
        """
        if not self.versions(name):
            raise ModelNotFoundError(name, self.names())
        with self._files.lock(_aliases_path(name)):
            aliases = self._read_aliases(name)
            version = aliases.version_before(alias)
            if version is None or version not in self.versions(name):
                raise NoEarlierVersionError(f"{name}@{alias}", version)
            aliases.change("rollback", alias, version)
            self._write_aliases(name, aliases)
        return version

    def _open(self, name: str, version: str) -> Checkpoint:
        folder = _folder(name, version)
        path = f"{folder}/{MANIFEST_FILE}"
        try:
            manifest = Manifest.model_validate_json(self._files.read(path))
        except FileNotFoundError:
            raise ModelNotFoundError(f"{name}@{version}", _references(name, self.versions(name))) from None
        except ValidationError as error:
            raise ManifestInvalidError(path, _one_line(error)) from error
        if (manifest.name, manifest.version) != (name, version):
            raise ManifestInvalidError(path, f"it describes {manifest.reference}, not {name}@{version}")
        return Checkpoint(manifest, folder)

    def _read_verified(self, folder: str, entry: FileEntry) -> bytes:
        location = f"{folder}/{entry.path}"
        try:
            content = self._files.read(location)
        except FileNotFoundError:
            raise WeightsCorruptedError(location, "the file is missing") from None
        if reason := _mismatch(entry, content):
            raise WeightsCorruptedError(location, reason)
        return content

    def _read_attached(self, checkpoint: Checkpoint) -> _AttachedReports:
        return self._read_or_new(_reports_index(checkpoint), _AttachedReports)

    def _read_aliases(self, name: str) -> _Aliases:
        return self._read_or_new(_aliases_path(name), _Aliases)

    def _read_or_new(self, path: str, kind: type[ModelT]) -> ModelT:
        try:
            return kind.model_validate_json(self._files.read(path))
        except FileNotFoundError:
            return kind()
        except ValidationError as error:
            raise ManifestInvalidError(path, _one_line(error)) from error

    def _write_aliases(self, name: str, aliases: _Aliases) -> None:
        content = json.dumps(aliases.model_dump(mode="json"), indent=2).encode() + b"\n"
        self._files.replace(_aliases_path(name), content)


def _folder(name: str, version: str) -> str:
    return f"{name}/versions/{version}"


def _reports_index(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.folder}/{REPORTS_FOLDER}/index.json"


def _aliases_path(name: str) -> str:
    return f"{name}/aliases.json"


def _references(name: str, versions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}@{version}" for version in versions)


def _is_valid(adapter: TypeAdapter[str], text: str) -> bool:
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


def _version_order(version: str) -> list[tuple[int, int, str]]:
    """Numbers compare as numbers, everything else as text."""
    parts = re.findall(r"\d+|\D+", version)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _mismatch(entry: FileEntry, content: bytes) -> str | None:
    """Why these bytes are not the ones the manifest names, None if they are."""
    if len(content) != entry.size_bytes:
        return f"{len(content)} bytes, but the manifest says {entry.size_bytes}"
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        return f"sha256 is {digest[:16]}..., but the manifest says {entry.sha256[:16]}..."
    return None


def _one_line(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
