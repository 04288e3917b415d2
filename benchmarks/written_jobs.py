"""A job's record as the service writes it, without asking whether there is room: for tests and benchmarks."""

from redis import Redis

from worker.contract import keys
from worker.contract.ledger import create_keys, job_fields, label_of
from worker.contract.ledger_scripts import CREATE_JOB
from worker.contract.messages import JobSpec

# KEYS: as of `create_job`. ARGV: job id, now, expiry, events limit, its images' label, whether it goes ahead
# (0/1), flattened job hash.
_WRITE = (
    CREATE_JOB
    + "create_job(1, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1', {unpack(ARGV, 7)})"
)


def write_job(redis: "Redis", spec: JobSpec, *, now: float, expires_at: float) -> None:
    """Write a queued job; the caller enqueues its chunks, if they are to be made. Times are epoch seconds."""
    fields = [*job_fields(spec, now=now, expires_at=expires_at), "spec", spec.to_wire_json()]
    redis.register_script(_WRITE)(
        keys=create_keys(spec),
        args=[
            spec.job_id,
            now,
            expires_at,
            keys.EVENTS_MAX_LENGTH,
            label_of(spec),
            int(spec.at_front),
            *fields,
        ],
    )
