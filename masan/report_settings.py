"""Settings of the process that makes reports: `MASAN_REPORT_DATA`, `MASAN_REPORT_CACHE` and the worker's."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from worker.settings import QueueProcessSettings


class ReportWorkerSettings(QueueProcessSettings):
    """One field per `MASAN_<FIELD>` variable; a wrong value keeps the process from starting.

    report_data: real images, a folder per class or a packed file, for checkpoints that carry no reference set
    of their own. report_cache: where features of real images are kept. result_store_url: where delivered
    images lie, whose quality is looked at every served_quality_s seconds; without it, or with 0, it is not.
    """

    report_data: Path | None = None
    result_store_url: str | None = None
    served_quality_s: Annotated[float, Field(ge=0)] = 120.0
    report_cache: Annotated[Path, Field(default_factory=lambda: Path("~/.cache/masan"))]

    @field_validator("report_data", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("report_data")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().exists():
            raise ValueError("there is no such folder or file")
        return None if value is None else value.expanduser().resolve()
