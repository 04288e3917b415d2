"""Reference sets: what is kept of real images, so that a checkpoint is judged where they are not.

Holds features, colour statistics and random projections of thumbnails, in one safetensors file beside a
checkpoint's weights; no pixel, and no file name, of a patient's image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model_store.errors import ModelStoreError
from model_store.file_store import FileStore
from model_store.manifest import REFERENCE_FILE, FileEntry, Sha256, Slug
from model_store.quality.packed_matrix import PackedMatrix
from model_store.quality.projected_thumbnails import PROJECTIONS, ProjectedThumbnails
from model_store.quality.thumbnails import unit_length
from model_store.store import MANIFEST_FILE, Checkpoint, ModelStore

FEATURE_BITS: Final = 4.5
HISTOGRAM_BITS: Final = 3.0
PROJECTION_BITS: Final = 4.0
"""Mean bits a value. Source: errors measured on the B-ALL set, docs/reference-sets.md."""

FloatArray = npt.NDArray[np.float32]
Tensors = Mapping[str, npt.NDArray[np.generic]]


class ReferenceSetInvalidError(ModelStoreError):
    """A reference set cannot be used; `reason` says why."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        self.reason = reason
        super().__init__(f"reference set {source}: {reason}")


class ReferenceSetAbsentError(ModelStoreError):
    """The checkpoint has no reference set."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        super().__init__(
            f"{reference} has no reference set; give --data, or make one:"
            f" masan reference build --data DIR --model {reference}"
        )


class ExtractorInfo(BaseModel):
    """Which network's features these are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: Sha256
    preprocessing: str


class ReferenceInfo(BaseModel):
    """What a reference set says of itself, as JSON in the file's metadata.

    digest: of the real images and their cleaning. resolution: side of those images, pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    classes: Annotated[tuple[Slug, ...], Field(min_length=1)]
    digest: Sha256
    resolution: Annotated[int, Field(ge=8, le=4096)]
    deduplicated: bool | None
    extractors: tuple[ExtractorInfo, ...]


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """N real images of K classes, without their pixels.

    labels, blocks: [N], positions in the classes and series blocks. features: by extractor name, each [N, F].
    rgb: [N, 3], luma_histogram: [N, 256], has_bar: [N], as training's PixelStatistics. thumbnails: of the
    images no block holds out, in their order. unseen_similarity: [M], what a search in these thumbnails finds
    for held-out images of the classes unseen_labels, [M].
    """

    info: ReferenceInfo
    labels: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    features: Mapping[str, FloatArray]
    rgb: FloatArray
    luma_histogram: FloatArray
    has_bar: npt.NDArray[np.bool_]
    thumbnails: ProjectedThumbnails
    unseen_labels: npt.NDArray[np.int64]
    unseen_similarity: FloatArray

    def encode(self) -> bytes:
        """The set as a file; features and statistics lose precision, see docs/reference-sets.md."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "labels": self.labels.astype(np.uint8),
            "blocks": self.blocks.astype(np.uint8),
            "rgb": self.rgb.astype(np.float32),
            "has_bar": self.has_bar.astype(np.uint8),
            "thumbnails.mean": self.thumbnails.mean.astype(np.float32),
            "unseen_labels": self.unseen_labels.astype(np.uint8),
            "unseen_similarity": self.unseen_similarity.astype(np.float32),
        }
        for name, values in self.features.items():
            tensors |= PackedMatrix.of(values, FEATURE_BITS, is_root=True).tensors(f"features.{name}")
        histogram = PackedMatrix.of(self.luma_histogram, HISTOGRAM_BITS, is_root=True)
        tensors |= histogram.tensors("luma_histogram")
        descriptors = PackedMatrix.of(self.thumbnails.descriptors, PROJECTION_BITS)
        tensors |= descriptors.tensors("thumbnails.descriptors")
        # Bytes are written in memory order, whatever order the array says they are in.
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        return save(tensors, {"masan_reference_set": self.info.model_dump_json()})

    @classmethod
    def decode(cls, content: bytes, source: str) -> ReferenceSet:
        """The set in a file; `source` names it in errors. Raises ReferenceSetInvalidError."""
        try:
            tensors = load(content)
            info = ReferenceInfo.model_validate_json(_metadata(content)["masan_reference_set"])
            return cls._of_tensors(info, tensors)
        except SafetensorError as error:
            raise ReferenceSetInvalidError(source, f"not a safetensors file: {error}") from error
        except KeyError as error:
            raise ReferenceSetInvalidError(source, f"{error.args[0]} is missing") from error
        except ValidationError as error:
            where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ReferenceSetInvalidError(source, where) from error
        except ValueError as error:
            raise ReferenceSetInvalidError(source, str(error)) from error

    @classmethod
    def _of_tensors(cls, info: ReferenceInfo, tensors: Tensors) -> ReferenceSet:
        features = {
            extractor.name: PackedMatrix.from_tensors(tensors, f"features.{extractor.name}").values()
            for extractor in info.extractors
        }
        descriptors = PackedMatrix.from_tensors(tensors, "thumbnails.descriptors").values()
        histogram = PackedMatrix.from_tensors(tensors, "luma_histogram").values()
        found = cls(
            info=info,
            labels=tensors["labels"].astype(np.int64),
            blocks=tensors["blocks"].astype(np.int64),
            features=features,
            rgb=tensors["rgb"].astype(np.float32),
            luma_histogram=histogram / np.maximum(histogram.sum(axis=1, keepdims=True), 1e-6),
            has_bar=tensors["has_bar"].astype(np.bool_),
            thumbnails=ProjectedThumbnails(
                mean=tensors["thumbnails.mean"].astype(np.float32), descriptors=unit_length(descriptors)
            ),
            unseen_labels=tensors["unseen_labels"].astype(np.int64),
            unseen_similarity=tensors["unseen_similarity"].astype(np.float32),
        )
        found._check()
        return found

    def _check(self) -> None:
        """Raises ValueError naming the first part that does not fit the labels."""
        count = len(self.labels)
        rows = {"blocks": len(self.blocks), "rgb": len(self.rgb), "has_bar": len(self.has_bar)}
        rows |= {"luma_histogram": len(self.luma_histogram)}
        rows |= {f"features.{name}": len(values) for name, values in self.features.items()}
        for name, found in rows.items():
            if found != count:
                raise ValueError(f"{name} has {found} rows for {count} labels")
        if self.rgb.shape != (count, 3) or self.luma_histogram.shape != (count, 256):
            raise ValueError("rgb must be [N, 3] and luma_histogram [N, 256]")
        if self.thumbnails.descriptors.shape[1:] != (PROJECTIONS,) or self.thumbnails.mean.shape != (
            PROJECTIONS,
        ):
            raise ValueError(f"thumbnails must have {PROJECTIONS} projections")
        for labels in (self.labels, self.unseen_labels):
            if len(labels) and labels.max() >= len(self.info.classes):
                raise ValueError(f"label {labels.max()} has no class")
        if len(self.unseen_labels) != len(self.unseen_similarity):
            raise ValueError("unseen_labels and unseen_similarity differ in length")


def load_reference_set(store: ModelStore, checkpoint: Checkpoint) -> ReferenceSet:
    """The reference set that ships with a checkpoint.

    Raises ReferenceSetAbsentError if it has none, ReferenceSetInvalidError, WeightsCorruptedError for bytes
    that are not those the manifest names.
    """
    if not checkpoint.manifest.has_reference_set:
        raise ReferenceSetAbsentError(checkpoint.reference)
    content = store.read_file(checkpoint, REFERENCE_FILE)
    return ReferenceSet.decode(content, f"{checkpoint.folder}/{REFERENCE_FILE}")


def reference_entry(content: bytes) -> FileEntry:
    """What a manifest says of an encoded reference set."""
    return FileEntry(path=REFERENCE_FILE, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def attach_reference_set(store: ModelStore, checkpoint: Checkpoint, reference: ReferenceSet) -> Checkpoint:
    """Add a reference set to a published checkpoint that has none; its digest and weights stay as they are.

    Raises ReferenceSetInvalidError if it has one already, or the set is of other classes.
    """
    if set(reference.info.classes) != set(checkpoint.manifest.classes):
        theirs, ours = ", ".join(checkpoint.manifest.classes), ", ".join(reference.info.classes)
        raise ReferenceSetInvalidError(checkpoint.reference, f"is of {ours}; the checkpoint has {theirs}")
    content = reference.encode()
    files, path = FileStore(store.url), f"{checkpoint.folder}/{MANIFEST_FILE}"
    with files.lock(path):
        current = store.resolve(checkpoint.reference)
        if current.manifest.has_reference_set:
            raise ReferenceSetInvalidError(checkpoint.reference, "is published already; it is never replaced")
        entries = (*current.manifest.reports, reference_entry(content))
        manifest = current.manifest.model_copy(update={"reports": entries})
        # The manifest last: until it names the file, the file is not there for any reader.
        files.replace(f"{checkpoint.folder}/{REFERENCE_FILE}", content)
        files.replace(path, manifest.model_dump_json(indent=2).encode() + b"\n")
    return store.resolve(checkpoint.reference)


def _metadata(content: bytes) -> dict[str, str]:
    """Metadata of a safetensors file that could be loaded: its header is JSON of the length stated first."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return found
