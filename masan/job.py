"""What the server says of jobs: their state, their events, their shards."""

from dataclasses import dataclass, field
from typing import Any, Final, Self

_FINAL: Final = frozenset({"succeeded", "failed", "canceled", "expired"})


@dataclass(frozen=True)
class Job:
    """What the server says of a job. `body` is its whole answer; `seed` is a uint64.

    classes: images of each class, in the order asked for.
    """

    id: str
    status: str
    n: int
    done: int
    seed: int
    model: str
    images_per_second: float | None = None
    eta_seconds: float | None = None
    error: dict[str, Any] | None = None
    format: str = "zip"
    classes: dict[str, int] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_final(self) -> bool:
        return self.status in _FINAL

    @property
    def class_slug(self) -> str:
        """Its class, `mixed` for several."""
        return str(self.body.get("class") or "+".join(self.classes))

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError if the body is no job."""
        progress = body.get("progress") or {}
        model = body["model"]
        return cls(
            id=body["id"],
            status=body["status"],
            n=int(body["n"]),
            done=int(progress.get("done") or 0),
            seed=int(body["seed"]),
            model=f"{model['name']}@{model['version']}",
            images_per_second=progress.get("images_per_second"),
            eta_seconds=progress.get("eta_seconds"),
            error=body.get("error"),
            format=body.get("format") or "zip",
            classes={slug: int(count) for slug, count in (body.get("mix") or {}).items()},
            body=body,
        )


@dataclass(frozen=True)
class JobEvent:
    """What happened to a job: `status`, `progress`, `shard` or `done`; `snapshot` where events were lost."""

    id: str
    name: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """A finished part of a job: `count` images of one class in a tar of `size_bytes` that never changes."""

    job_id: str
    index: int
    class_slug: str
    count: int
    sha256: str
    size_bytes: int

    @classmethod
    def from_body(cls, job_id: str, body: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError if the body is no shard."""
        return cls(
            job_id=job_id,
            index=int(body["index"]),
            class_slug=str(body["class"]),
            count=int(body["count"]),
            sha256=str(body["sha256"]),
            size_bytes=int(body["bytes"]),
        )


@dataclass(frozen=True)
class ShardList:
    """The shards that are made, in order; there will be `total`, unless the job ends before."""

    status: str
    total: int
    shards: tuple[Shard, ...]

    @property
    def is_final(self) -> bool:
        return self.status in _FINAL

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError if the body is no such list."""
        shards = (Shard.from_body(body["job"], shard) for shard in body["shards"])
        return cls(status=body["status"], total=int(body["total"]), shards=tuple(shards))


def id_of(job: Job | str) -> str:
    """Raises ValueError for what cannot be a job's id."""
    job_id = job if isinstance(job, str) else job.id
    if not job_id or not job_id.isascii() or not job_id.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"job {job_id!r} is not the id of a job, such as job_01KAQ3V5T8X2M4N6P8R0S2T4V6")
    return job_id
