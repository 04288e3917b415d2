"""A job as routes hold it: its record, and where in the line it stands."""

from dataclasses import dataclass

import orjson

from service.jobs.document import job_document
from service.jobs.record import JobRecord


@dataclass(frozen=True, slots=True)
class JobView:
    """queue_position: of its first waiting chunk, None once it runs, or where nobody asked."""

    job: JobRecord
    queue_position: int | None

    @property
    def job_id(self) -> str:
        return self.job.job_id

    def to_json(self, now: float) -> bytes:
        """What answers tell of it. now: epoch seconds."""
        document = job_document(self.job, queue_position=self.queue_position, now=now)
        return orjson.dumps(document, option=orjson.OPT_UTC_Z)
