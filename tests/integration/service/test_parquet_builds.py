"""Parquet files: made once, by one process at a time, again if they are damaged, never left alone."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from service.errors import ResultLostError, ResultNotReadyError
from service.jobs.record import JobRecord
from service.results.parquet_builds import ParquetBuilds, ParquetFile, ParquetSink
from service.storage.store import ResultStore
from tests.integration.service.harness import Service
from worker.contract import keys

pytestmark = pytest.mark.integration

MakeBuilds = Callable[..., ParquetBuilds]


class Writer:
    """Writes two chunks; counts how often. hold: what it waits for in between."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.begun = 0
        self.reached = threading.Event()
        self._hold = hold

    def __call__(self, sink: ParquetSink) -> None:
        self.begun += 1
        sink.write(b"first")
        sink.go_on()
        self.reached.set()
        if self._hold is not None:
            assert self._hold.wait(10)
        sink.go_on()
        sink.write(b"second")


@pytest.fixture
def job(service: Service) -> JobRecord:
    job_id = service.finished_job(format="parquet")
    record = service.ledger.record(job_id)
    assert record is not None
    return JobRecord.from_hash(record)


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def make_builds(service: Service, stopping: threading.Event) -> MakeBuilds:
    """Each call is another process, as far as Redis can tell."""

    def make(wait_s: float = 10.0) -> ParquetBuilds:
        results = ResultStore(service.settings.result_store_url)
        return ParquetBuilds(service.redis, results, stopping, wait_s)

    return make


def folder_of(service: Service, job: JobRecord) -> Path:
    return Path(service.settings.result_store_url) / job.job_id


def test_many_processes_make_it_once(make_builds: MakeBuilds, job: JobRecord) -> None:
    writer = Writer()
    processes = [make_builds() for _ in range(3)]

    with ThreadPoolExecutor(9) as pool:
        files = list(pool.map(lambda builds: builds.open(job, writer), processes * 3))

    assert writer.begun == 1
    assert set(files) == {ParquetFile(f"{job.job_id}/result.parquet", 11, files[0].sha256)}


def test_file_that_another_process_made_since_it_was_looked_for_is_not_made_again(
    make_builds: MakeBuilds, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, one, other = Writer(), make_builds(), make_builds()
    find = one._find

    def find_and_be_overtaken(job: JobRecord) -> ParquetFile | None:
        found = find(job)
        if not writer.begun:
            other.open(job, writer)
        return found

    monkeypatch.setattr(one, "_find", find_and_be_overtaken)

    assert one.open(job, writer).size_bytes == 11
    assert writer.begun == 1


def test_request_that_waits_too_long_is_told_when_to_come_again(
    make_builds: MakeBuilds, job: JobRecord
) -> None:
    hold = threading.Event()
    writer, one, other = Writer(hold), make_builds(0.2), make_builds(0.2)

    for builds in (one, other):
        with pytest.raises(ResultNotReadyError) as refused:
            builds.open(job, writer)
        assert refused.value.retry_after_s
    hold.set()

    assert make_builds().open(job, writer).size_bytes == 11
    assert writer.begun == 1


def test_its_bytes_count_as_the_jobs(service: Service, make_builds: MakeBuilds, job: JobRecord) -> None:
    def counted() -> tuple[int, int]:
        own = service.redis.hget(keys.job_key(job.job_id), "stored_bytes")
        every = service.redis.hget(keys.COUNTERS, "result_bytes")
        return int(str(own)), int(str(every))

    before = counted()
    file = make_builds().open(job, Writer())
    (folder_of(service, job) / "result.parquet").write_bytes(b"damaged")
    make_builds().open(job, Writer())

    assert [after - was for after, was in zip(counted(), before, strict=True)] == [file.size_bytes] * 2


def test_damaged_file_is_made_again(service: Service, make_builds: MakeBuilds, job: JobRecord) -> None:
    builds, writer = make_builds(), Writer()
    builds.open(job, writer)
    (folder_of(service, job) / "result.parquet").write_bytes(b"short")

    builds.open(job, writer)

    assert (folder_of(service, job) / "result.parquet").read_bytes() == b"firstsecond"


def test_nothing_is_left_of_a_file_whose_images_are_lost(
    service: Service, make_builds: MakeBuilds, job: JobRecord
) -> None:
    def write(sink: ParquetSink) -> None:
        sink.write(b"first")
        raise ValueError("a row of another length")

    builds = make_builds()
    with pytest.raises(ResultLostError):
        builds.open(job, write)

    assert not [path for path in folder_of(service, job).iterdir() if "parquet" in path.name]
    assert builds.open(job, Writer()).size_bytes == 11


def test_file_of_a_job_that_is_collected_meanwhile_goes_with_it(
    service: Service, make_builds: MakeBuilds, job: JobRecord
) -> None:
    def write(sink: ParquetSink) -> None:
        sink.write(b"all")
        service.redis.hset(keys.job_key(job.job_id), "collecting", 1)

    with pytest.raises(ResultNotReadyError):
        make_builds().open(job, write)

    assert not folder_of(service, job).exists()


def test_process_that_ends_puts_it_down_for_the_next(
    make_builds: MakeBuilds, job: JobRecord, stopping: threading.Event
) -> None:
    hold = threading.Event()
    writer, builds = Writer(hold), make_builds()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(builds.open, job, writer)
        assert writer.reached.wait(10)
        stopping.set()
        hold.set()
        assert isinstance(asked.exception(10), ResultNotReadyError)
    stopping.clear()

    assert make_builds().open(job, Writer()).size_bytes == 11


def test_lock_of_a_process_that_died_runs_out(
    service: Service,
    make_builds: MakeBuilds,
    job: JobRecord,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    redis: Redis = service.redis
    redis.set(f"masan:parquet:{job.job_id}", "another process", px=300)

    file = make_builds().open(job, Writer())

    assert file.size_bytes == 11
    assert not caplog.records


def test_missing_shard_is_told_as_such(service: Service, job: JobRecord) -> None:
    pytest.importorskip("pyarrow")
    service.shard_file(job.job_id, 0).unlink()

    response = service.client.get(f"/jobs/{job.job_id}/result")

    assert (response.status_code, response.json()["code"]) == (500, "result_lost")
