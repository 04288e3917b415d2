"""What a job is asked to make, checked against the checkpoint that is to make it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from model_store.architectures import accepts
from model_store.image_id import Walk
from model_store.manifest import Manifest
from model_store.store import Checkpoint
from service.errors import FieldError, InvalidParameterError, UnknownClassError
from worker.contract.messages import (
    ArchiveFormat,
    ClassCount,
    GateLevel,
    ImageEncoding,
    ModelRef,
    Priority,
)
from worker.contract.webhook_ledger import Webhook

INTERACTIVE_MAX_IMAGES = 64
RETRY_AFTER_S = 2
"""When to look at an unfinished job again."""
_KEPT = 1_024
"""Parts and references of one job are mostly those of another, too, and never change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request with every value decided; `seed` is drawn already.

    deadline: epoch seconds after which the unfinished job expires. tenant: id of the API key it belongs to,
    empty without keys. is_listed: False for a job that the service makes for itself. ttl_s: how long its
    files are kept, None for the service's own time. job_id: decided beforehand by one who must find the job
    again; asking twice with the same one makes one job.
    """

    checkpoint: Checkpoint
    parts: tuple[ClassCount, ...]
    seed: int
    truncation: float = 1.0
    walk: Walk | None = None
    format: ArchiveFormat = "zip"
    encoding: ImageEncoding = field(default_factory=ImageEncoding)
    gate: GateLevel = GateLevel.DEFAULT
    priority: Priority | None = None
    deadline: float | None = None
    tenant: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook: Webhook | None = None
    is_listed: bool = True
    ttl_s: float | None = None
    job_id: str | None = None

    @property
    def n(self) -> int:
        """Images of all parts."""
        return sum(part.count for part in self.parts)

    @property
    def model(self) -> ModelRef:
        return _model_ref(self.checkpoint.reference, self.checkpoint.digest)

    @property
    def effective_priority(self) -> Priority:
        """As asked, else by size."""
        return self.priority or priority_of(self.n)

    def check(self) -> None:
        """Whether the checkpoint can make it.

        Raises UnknownClassError, InvalidParameterError for a truncation that its architecture does not have.
        """
        manifest = self.checkpoint.manifest
        for part in self.parts:
            if part.class_slug not in manifest.classes:
                raise _unknown_class(manifest, part.class_slug, "class")
        if self.truncation != 1 and not accepts(manifest.architecture, "truncation"):
            raise _truncation_unknown(manifest, self.truncation)


@lru_cache(maxsize=_KEPT)
def _model_ref(reference: str, digest: str) -> ModelRef:
    name, _, version = reference.partition("@")
    return ModelRef(name=name, version=version, digest=digest)


def priority_of(n: int) -> Priority:
    """`interactive` for a job small enough to be waited for."""
    return Priority.INTERACTIVE if n <= INTERACTIVE_MAX_IMAGES else Priority.BATCH


def class_counts(
    manifest: Manifest, mix: Mapping[str, int], *, name: str = "class"
) -> tuple[ClassCount, ...]:
    """The parts of a job that makes `mix` images of each class, in the mix's order.

    name: the request's field that a class it does not have stood in. Raises UnknownClassError.
    """
    for slug in mix:
        if slug not in manifest.classes:
            raise _unknown_class(manifest, slug, name)
    return tuple([_part(slug, manifest.class_index(slug), count) for slug, count in mix.items()])


@lru_cache(maxsize=_KEPT)
def _part(slug: str, index: int, count: int) -> ClassCount:
    return ClassCount(class_slug=slug, class_index=index, count=count)


def _unknown_class(manifest: Manifest, slug: str, name: str) -> UnknownClassError:
    known = ", ".join(manifest.classes)
    return UnknownClassError(
        f"{manifest.reference} has no class {slug[:100]!r}; it has {known}.",
        errors=[FieldError(name, f"unknown class {slug[:100]!r}", list(manifest.classes))],
    )


def _truncation_unknown(manifest: Manifest, truncation: float) -> InvalidParameterError:
    reason = f"architecture {manifest.architecture} has no truncation"
    detail = f"{manifest.reference}: {reason}, given as {truncation:g}; leave it out."
    if "guidance" in manifest.config:
        detail += f" Its images are drawn with guidance {manifest.config['guidance']}, as published."
    return InvalidParameterError(detail, errors=[FieldError("truncation", reason, "1")])
