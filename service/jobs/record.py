"""A job as the ledger's hash describes it."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from worker.contract.messages import JobSpec, JobStatus

_KEPT_SPECS = 2_048
"""A job's spec never changes, and a job is looked at again and again."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the ledger knows it. Times are epoch seconds.

    is_deleted: its owner has asked for that. is_collected: its files are gone, or about to be.
    """

    spec: JobSpec
    status: JobStatus
    done: int
    rejected: int
    next_chunk: int
    created_at: float
    expires_at: float
    started_at: float | None
    finished_at: float | None
    deadline: float | None
    attempt: int
    error: dict[str, Any] | None
    is_deleted: bool = False
    is_collected: bool = False

    @classmethod
    def from_hash(cls, record: dict[str, str]) -> Self:
        """From the ledger's hash."""
        return cls(
            spec=_spec_of(record["spec"]),
            status=JobStatus(record["status"]),
            done=int(record["done"]),
            rejected=int(record["rejected"]),
            next_chunk=int(record["next_chunk"]),
            created_at=float(record["created_at"]),
            expires_at=float(record["expires_at"]),
            started_at=float(record["started_at"]) if record.get("started_at") else None,
            finished_at=float(record["finished_at"]) if record.get("finished_at") else None,
            deadline=float(record["deadline"]) if record.get("deadline") else None,
            attempt=int(record["attempt"]),
            error=json.loads(record["error"]) if record.get("error") else None,
            is_deleted="deleted" in record,
            is_collected=not record.keys().isdisjoint({"collecting", "collected"}),
        )

    @property
    def job_id(self) -> str:
        return self.spec.job_id

    @property
    def class_slug(self) -> str:
        return self.spec.class_slug

    @property
    def priority(self) -> str:
        return self.spec.priority

    @property
    def ends_by(self) -> float:
        """When it expires if it has not ended before."""
        return self.expires_at if self.deadline is None else min(self.deadline, self.expires_at)

    def is_gone(self, now: float) -> bool:
        """Whether its images may be gone, so that it answers 410."""
        return self.is_deleted or self.is_collected or now >= self.expires_at


@lru_cache(maxsize=_KEPT_SPECS)
def _spec_of(text: str) -> JobSpec:
    return JobSpec.model_validate_json(text)
