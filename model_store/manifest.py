"""What a checkpoint says of itself: frozen, validated, torch-free."""

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

REFERENCE_FILE: Final = "reference.safetensors"
"""What was kept of real images to judge by; see `model_store.quality.reference_set`."""
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    """One file of a checkpoint, named relative to its version folder."""

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class DatasetInfo(_Frozen):
    """The real images a checkpoint learned from. `digest` covers the file names and bytes used."""

    name: str
    digest: Sha256
    images_per_class: dict[Slug, int]
    cleaning: str
    held_out: str
    license: str


class TrainingHistory(_Frozen):
    """What was done to obtain the weights, so that nobody has to guess."""

    recipe: str
    images_seen: Annotated[int, Field(ge=0)]
    hours: Annotated[float, Field(ge=0)]
    device: str
    seed: int
    commit: str
    torch_version: str
    finished_at: AwareDatetime
    notes: str = ""


class Manifest(_Frozen):
    """A checkpoint's whole description.

    `config` holds the arguments of the architecture's generator; `classes` is ordered: its index is
    the label the network was trained with. reports: files beside the weights, the quality report and what it
    was made against. overrides: what spoke against publishing and was overruled, a sentence each.
    """

    schema_version: Literal[1] = 1
    name: Slug
    version: Version
    architecture: str
    config: dict[str, Any]
    classes: Annotated[tuple[Slug, ...], Field(min_length=1)]
    resolution: Annotated[int, Field(ge=8, le=4096)]
    weights: FileEntry
    dataset: DatasetInfo
    training: TrainingHistory
    reports: tuple[FileEntry, ...] = ()
    overrides: tuple[str, ...] = ()
    license: str
    intended_use: str
    not_for: str

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> "Manifest":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be distinct")
        return self

    @property
    def digest(self) -> str:
        """Hex sha256 of what determines an image: architecture, config, classes, resolution, weights.

        Reports and history may be corrected without changing what the checkpoint draws, hence they
        do not count.
        """
        identity = {
            "architecture": self.architecture,
            "config": self.config,
            "classes": list(self.classes),
            "resolution": self.resolution,
            "weights": self.weights.sha256,
        }
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def has_reference_set(self) -> bool:
        """Whether it brings what it can be judged against without the real images."""
        return any(entry.path == REFERENCE_FILE for entry in self.reports)

    def class_index(self, slug: str) -> int:
        """Label of a class. Raises KeyError for a slug this checkpoint does not know."""
        try:
            return self.classes.index(slug)
        except ValueError:
            raise KeyError(slug) from None
