"""Settings of the HTTP process, read once from `MASAN_...` environment variables at its entry point."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    RedisDsn,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import SettingsError
from worker.contract.webhook_target import Networks, parse_networks

ENV_PREFIX = "MASAN_"
MODEL_REFERENCE_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$"


class ServiceSettings(BaseSettings):
    """One field per `MASAN_<FIELD>` variable; a wrong value keeps the process from starting.

    result_ttl_s: how long a job's images are kept after it was accepted. max_queue_images: images that may
    wait over all jobs before new ones are refused. allowed_hosts: extra `Host` names that are answered
    without API keys (loopback names always are). max_concurrent_requests: answered at once by this process.
    shutdown_grace_s: how long answers under way may take once it is told to stop, and shutdown_delay_s
    before that, how long new ones are accepted while /readyz says that it is stopping. signing_key_file: the
    key that signs certificates, made at the first start. result_reserve_bytes: to stay free where results
    lie. result_max_bytes: that all of them may take together, 0 for no limit. presigned_urls: whether clients
    are sent to a result store that can sign URLs. max_event_streams: open at a time in this process.
    event_keepalive_s: a comment is sent into a stream that was silent for so long.
    otlp_endpoint: of a collector of spans, None for none. webhook_networks: where webhooks may go
    although it is not public; http to loopback addresses of them.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    model_store_url: Annotated[str, StringConstraints(min_length=1)]
    result_store_url: Annotated[str, StringConstraints(min_length=1)]
    default_model: Annotated[str, StringConstraints(pattern=MODEL_REFERENCE_PATTERN)] = "b-all@production"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    api_key: SecretStr | None = None
    api_keys_file: Path | None = None
    allowed_hosts: frozenset[str] = frozenset()
    result_ttl_s: Annotated[float, Field(gt=0)] = 86_400.0
    max_queue_images: Annotated[int, Field(ge=1)] = 200_000
    max_concurrent_requests: Annotated[int, Field(ge=1)] = 512
    shutdown_grace_s: Annotated[int, Field(ge=1, le=3_600)] = 8
    shutdown_delay_s: Annotated[float, Field(ge=0, le=3_600)] = 0.0
    reaper_interval_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    signing_key_file: Path = Path("~/.local/share/masan/signing_key.pem")
    result_reserve_bytes: Annotated[int, Field(ge=0)] = 2**30
    result_max_bytes: Annotated[int, Field(ge=0)] = 0
    presigned_urls: bool = True
    max_event_streams: Annotated[int, Field(ge=1, le=10_000)] = 256
    event_keepalive_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "otlp_endpoint", f"{ENV_PREFIX}OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
        ),
    )
    webhook_networks: Annotated[Networks, NoDecode, BeforeValidator(parse_networks)] = ()

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: str) -> str:
        if not value.startswith("unix://"):
            TypeAdapter(RedisDsn).validate_python(value)
        return value

    @field_validator("api_key")
    @classmethod
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("an API key has at least 16 characters")
        return value

    @property
    def binds_to_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_settings() -> ServiceSettings:
    """Settings from the environment. Raises SettingsError, which names the variable."""
    try:
        return ServiceSettings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = f"{ENV_PREFIX}{'_'.join(str(part) for part in first['loc'])}".upper()
        given = "is not set" if first["type"] == "missing" else _shown(variable, first["input"])
        raise SettingsError(variable, f"{given}: {first['msg']}") from error


def _shown(variable: str, value: object) -> str:
    """The refused value, unless it may be a secret (a Redis URL can hold a password)."""
    secret = variable in {f"{ENV_PREFIX}API_KEY", f"{ENV_PREFIX}REDIS_URL"}
    return "has an unusable value" if secret else f"= {value!r}"
