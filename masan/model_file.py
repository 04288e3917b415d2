"""A checkpoint as one file, a zip: its manifest, its weights, its reports. Nothing in it can run."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from model_store.store import Checkpoint, ModelStore

MANIFEST_FILE: Final = "manifest.json"
_ATTACHED: Final = "attached/"
"""Reports made after it was published, oldest first by their names."""
_MAX_FILE_BYTES: Final = 4 * 2**30
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""Of every member: the same checkpoint gives the same bytes."""


def export_checkpoint(store: "ModelStore", checkpoint: "Checkpoint", path: Path) -> None:
    """Every file is checked against the manifest before it is written. Raises ModelStoreError, OSError."""
    manifest = checkpoint.manifest
    aside = path.with_name(f"{path.name}.part")
    try:
        with zipfile.ZipFile(aside, "w") as archive:
            _write(archive, MANIFEST_FILE, manifest.model_dump_json(indent=2).encode() + b"\n")
            for entry in (manifest.weights, *manifest.reports):
                _write(archive, entry.path, store.read_file(checkpoint, entry.path))
            for number, entry in enumerate(reversed(store.attached_reports(checkpoint))):
                _write(archive, f"{_ATTACHED}{number:04d}.json", store.read_attached(checkpoint, entry))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def import_checkpoint(store: "ModelStore", path: Path) -> "Checkpoint":
    """Publish what `export_checkpoint` wrote. Raises ValueError for another file, ModelStoreError."""
    from pydantic import ValidationError

    from model_store.errors import ManifestInvalidError
    from model_store.manifest import Manifest

    try:
        with zipfile.ZipFile(path) as archive:
            files = {entry.filename: _read(archive, entry) for entry in archive.infolist()}
        manifest = Manifest.model_validate_json(files.pop(MANIFEST_FILE))
    except ValidationError as error:
        raise ValueError(f"{path}: its manifest is none ({error.error_count()} fields are wrong)") from error
    except (zipfile.BadZipFile, KeyError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is not what `masan models export` writes ({error})") from error
    attached = [content for name, content in sorted(files.items()) if name.startswith(_ATTACHED)]
    named = {name: content for name, content in files.items() if not name.startswith(_ATTACHED)}
    for content in attached:
        if json.loads(content).get("digest") != manifest.digest:
            raise ValueError(f"{path}: a report in it is of another checkpoint")
    try:
        checkpoint = store.publish(manifest, named)
    except ManifestInvalidError as error:
        raise ValueError(f"{path}: {error}") from error
    for content in attached:
        store.attach_report(checkpoint, content)
    return checkpoint


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), content)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Raises ValueError for more than a checkpoint can have; BadZipFile for damage."""
    if entry.file_size > _MAX_FILE_BYTES:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes; no checkpoint does")
    return archive.read(entry)
