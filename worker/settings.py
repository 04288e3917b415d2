"""Settings of the worker process, read once from `MASAN_...` environment variables at its entry point."""

import os
import secrets
import socket
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AliasChoices,
    Field,
    RedisDsn,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "MASAN_"


CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container finds its share of the CPUs: `max 100000` or microseconds of each period."""


def usable_cores(quota_file: Path = CGROUP_QUOTA) -> int:
    """Cores this process may use, a container's quota rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, quota_file.read_text().split())
    except (OSError, ValueError):  # no container, or `max`
        return cores
    return max(1, min(cores, -(-quota // period)))


def _unique_name() -> str:
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


class WorkerSettingsError(Exception):
    """A variable that keeps the worker from starting; the message names it."""


class QueueSettings(BaseSettings):
    """What every process that takes work from a queue reads; one field per `MASAN_<FIELD>` variable."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: str) -> str:
        if not value.startswith("unix://"):
            TypeAdapter(RedisDsn).validate_python(value)
        return value


class QueueProcessSettings(QueueSettings):
    """Of a process that uses checkpoints.

    worker_name: as it shows in the registry of workers; a random part is added where it is left out.
    device: `auto` takes the first GPU if there is one. threads: what runs at once on a CPU, None for what
    pays; a GPU runs one.
    """

    model_store_url: Annotated[str, StringConstraints(min_length=1)]
    worker_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] = Field(
        default_factory=_unique_name
    )
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None


class WorkerSettings(QueueProcessSettings):
    """Settings of a worker of chunks; a wrong value keeps the process from starting.

    threads: forward passes that run at once on a CPU, None to measure it. generator: `eager` runs networks as
    they are, `auto` on the fastest path there is. host, metrics_port: where /metrics is served; 0 takes a
    free port. cached_generators: checkpoints kept on the device. micro_batch_timeout_s: a forward pass that
    takes longer is stuck, and the process ends itself. otlp_endpoint: of a collector of spans, None for none.
    """

    result_store_url: Annotated[str, StringConstraints(min_length=1)]
    default_model: Annotated[str, StringConstraints(min_length=1)] = "b-all@production"
    generator: Literal["auto", "eager"] = "auto"
    encode_threads: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=usable_cores)
    cached_generators: Annotated[int, Field(ge=1, le=64)] = 2
    micro_batch_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "otlp_endpoint", f"{ENV_PREFIX}OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
        ),
    )


_Settings = TypeVar("_Settings", bound=QueueSettings)


def load_settings() -> WorkerSettings:
    """Settings from the environment. Raises WorkerSettingsError, which names the variable."""
    return load_settings_of(WorkerSettings)


def load_settings_of(kind: type[_Settings]) -> _Settings:
    """The same for another process of the queues. Raises WorkerSettingsError."""
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        variable = f"{ENV_PREFIX}{field}".upper()
        if first["type"] == "missing":
            raise WorkerSettingsError(f"{variable} is not set") from error
        # A Redis URL can hold a password, hence it is not shown.
        given = "has an unusable value" if field == "redis_url" else f"= {first['input']!r}"
        raise WorkerSettingsError(f"{variable} {given}: {first['msg']}") from error
