"""Room in the result store: accounted for, refused before it is used up, made by age and by bytes."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from service.context import Services
from service.errors import StoreFullError
from service.jobs.submission import ADMIT_KEYS, Submitter
from service.settings import ServiceSettings
from service.storage.keeper import ORPHAN_S, OWNER, SWEEP_S, SWEPT_AT, StorageKeeper
from service.storage.limits import StorageLimits, guessed_bytes
from service.storage.store import ResultStore
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ClassCount, ImageEncoding, JobSpec, JobStatus, ModelRef
from worker.contract.submit_script import ADMIT

pytestmark = pytest.mark.integration

DAY_S = 86_400.0
ORPHAN = f"job_{'0' * 26}"
ONE = int(guessed_bytes())
"""Bytes of an image while none was measured."""
JPEG = ImageEncoding(format="jpeg", quality=90)


class Disk:
    """In a result store's place: tells how much is free."""

    backend = "file"

    def __init__(self, free: int | None) -> None:
        self.free = free

    def free_bytes(self) -> int | None:
        if self.free is None:
            raise OSError("no such disk")
        return self.free


def admit(
    redis: "Redis", free: int | None, n: int, *, encoding: ImageEncoding | None = None, **limits: int
) -> None:
    """Ask for `n` more images on a disk with `free` bytes; None for one that cannot be asked."""
    storage = StorageLimits(cast("ResultStore", Disk(free)), **{"reserve_bytes": 0, "max_bytes": 0} | limits)
    submitter = Submitter(storage, result_ttl_s=60, max_queue_images=10**9)
    spec = JobSpec(
        job_id="job_1",
        model=ModelRef(name="tiny", version="1", digest="a" * 64),
        parts=(ClassCount(class_slug="pro_b", class_index=1, count=n),),
        seed=1,
        chunk_images=4,
        encoding=encoding or ImageEncoding(),
    )
    redis.hset(keys.WORKERS, "w", json.dumps({"heartbeat": 1.0, "state": "idle", "images_per_second": 8.0}))
    question = submitter.question(spec, n, 1.0, storage.room_bytes())
    answer = redis.register_script(ADMIT)(keys=ADMIT_KEYS, args=[question])
    assert submitter.admitted(n, cast("list[str]", answer)).live == 1


def unfinished(redis: "Redis", waiting: int, total: int) -> None:
    """Jobs that have not ended: what they still need, and had asked for."""
    redis.hset(keys.LOAD, mapping={"waiting:tiny@1:png": waiting, "total:tiny@1:png": total})


def disk_bytes(service: Service) -> int:
    """Of the files of all jobs."""
    folder = Path(service.settings.result_store_url)
    return sum(path.stat().st_size for path in folder.glob("job_*/*"))


def stored_bytes(service: Service) -> float:
    return service.metric('masan_result_store_bytes{backend="file"}')


@contextmanager
def building(service: Service, **changes: Any) -> Iterator[Services]:
    """The parts of another service process on the same backends, with other settings."""
    services = Services.build(service.settings.model_copy(update=changes), service.clock)
    yield services
    services.close()


@pytest.fixture
def results(service: Service) -> Iterator[Path]:
    """The store's folder, without jobs and without an owner."""
    folder = Path(service.settings.result_store_url)
    folder.mkdir(exist_ok=True)
    ResultStore(str(folder)).delete_asides("", before=time.time() + 10 * DAY_S)
    (folder / ".masan-owner").unlink(missing_ok=True)
    for path in folder.iterdir():
        ResultStore(str(folder)).delete_job(path.name)
    yield folder


@pytest.fixture
def keeper(service: Service, results: Path) -> StorageKeeper:
    return StorageKeeper(service.redis, service.ledger, ResultStore(str(results)), max_bytes=0)


def lay(folder: Path, name: str, *, age_s: float) -> Path:
    """A file that was written so long ago."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_is_counted_is_what_lies_there(service: Service, results: Path) -> None:
    kept, gone = service.finished_job(n=20), service.finished_job(n=5)

    before = (stored_bytes(service), disk_bytes(service))
    service.client.delete(f"/jobs/{gone}")
    with building(service) as services:
        services.reaper.run_once(service.clock())
    after = (stored_bytes(service), disk_bytes(service))

    assert before[0] == before[1] > after[0] == after[1] > 0
    assert [path.name for path in results.glob("job_*")] == [kept]
    assert service.metric('masan_result_expired_total{backend="file",reason="deleted"}') == 1


def test_a_job_without_room_is_refused_and_leaves_nothing(
    settings: ServiceSettings, service: Service, results: Path
) -> None:
    before = sorted(cast("list[str]", service.redis.keys("*")))
    full = settings.model_copy(update={"result_reserve_bytes": 2**62})
    with running(full, Clock(), service.checkpoint) as narrow:
        response = narrow.client.post("/generate?class=pro_b&n=5")

        assert (response.status_code, response.json()["code"]) == (507, "store_full")
        assert "retry-after" not in response.headers
        assert "DELETE /jobs" in response.json()["detail"]
        assert narrow.metric('masan_admission_rejections_total{reason="store_full"}') == 1

    added = set(cast("list[str]", service.redis.keys("*"))) - set(before) - {OWNER, SWEPT_AT}
    assert {key for key in added if "job" in key} == set()
    assert not service.redis.exists(keys.ACTIVE_JOBS)
    assert list(results.glob("job_*")) == []


def test_a_retry_without_room_is_refused(service: Service, settings: ServiceSettings) -> None:
    job_id = str(service.submit(n=5)["id"])
    service.client.post(f"/jobs/{job_id}/cancel")
    full = settings.model_copy(update={"result_reserve_bytes": 2**62})

    with running(full, Clock(), service.checkpoint) as narrow:
        response = narrow.client.post(f"/jobs/{job_id}/retry")

    assert (response.status_code, service.ledger.status(job_id)) == (507, JobStatus.CANCELED)


def test_room_is_what_is_free_less_the_reserve(redis: "Redis") -> None:
    admit(redis, 10 * ONE, 10)
    admit(redis, 10 * ONE + 5, 10, reserve_bytes=5)
    with pytest.raises(StoreFullError, match="take about"):
        admit(redis, 10 * ONE + 4, 10, reserve_bytes=5)


def test_what_accepted_jobs_still_need_counts_as_used(redis: "Redis") -> None:
    unfinished(redis, waiting=6, total=53)

    admit(redis, 10 * ONE, 4)
    with pytest.raises(StoreFullError):
        admit(redis, 10 * ONE, 5)


def test_measured_images_tell_their_size(redis: "Redis") -> None:
    redis.hset(keys.COUNTERS, "image_bytes:tiny@1:png", 1000)
    redis.hset(keys.COUNTERS, "images_stored:tiny@1:png", 100)

    admit(redis, 100, 10)
    with pytest.raises(StoreFullError):
        admit(redis, 100, 10, encoding=JPEG)


def test_a_disk_that_cannot_be_asked_refuses_nothing(redis: "Redis") -> None:
    admit(redis, None, 10**6)


def test_unfinished_jobs_have_to_fit_under_the_limit_of_all_results(redis: "Redis") -> None:
    unfinished(redis, waiting=1, total=6)

    admit(redis, 10**12, 4, max_bytes=10 * ONE)
    with pytest.raises(StoreFullError, match="all results may have"):
        admit(redis, 10**12, 5, max_bytes=10 * ONE)


def test_the_oldest_finished_jobs_give_way(service: Service, results: Path) -> None:
    running_job = str(service.submit(n=40)["id"])
    service.make_chunk(service.spec(running_job).chunk(0))
    oldest, middle, newest = (service.finished_job(n=10) for _ in range(3))
    limit = int(stored_bytes(service)) - 1

    with building(service, result_max_bytes=limit) as services:
        services.reaper.run_once(service.clock())

    assert {path.name for path in results.glob("job_*")} == {running_job, middle, newest}
    assert service.client.get(f"/jobs/{oldest}/result").status_code == 410
    assert service.client.get(f"/jobs/{middle}/result").status_code == 200
    assert stored_bytes(service) == disk_bytes(service) <= limit
    assert service.metric('masan_result_expired_total{backend="file",reason="bytes"}') == 1


def test_a_running_job_never_gives_way(service: Service, results: Path) -> None:
    job_id = str(service.submit(n=40)["id"])
    service.make_chunk(service.spec(job_id).chunk(0))

    with building(service, result_max_bytes=1) as services:
        services.reaper.run_once(service.clock())

    assert [path.name for path in results.glob("job_*")] == [job_id]
    assert service.ledger.status(job_id) is JobStatus.RUNNING


@pytest.mark.parametrize(("moved_s", "is_there"), [(-DAY_S, True), (DAY_S + 60, False)])
def test_results_go_by_the_clock_that_is_given(
    service: Service, results: Path, moved_s: float, is_there: bool
) -> None:
    job_id = service.finished_job()

    with building(service) as services:
        services.reaper.run_once(time.time() + moved_s)

    assert (results / job_id).exists() == is_there
    assert (stored_bytes(service) > 0) == is_there


def sweep(keeper: StorageKeeper, now: float) -> int:
    return keeper.sweep(now, lambda: None)


def test_folders_of_no_job_are_removed_once_they_are_old(
    service: Service, results: Path, keeper: StorageKeeper
) -> None:
    job_id = service.finished_job()
    for path in (results / job_id).iterdir():
        os.utime(path, (1, 1))
    old = lay(results, f"{ORPHAN}/00000.tar", age_s=ORPHAN_S + 60)
    young = lay(results, f"job_{'1' * 26}/00000.tar", age_s=60)
    foreign = lay(results, "somebody/notes.txt", age_s=10 * DAY_S)

    assert sweep(keeper, time.time()) == 1

    assert not old.parent.exists()
    assert young.exists() and foreign.exists() and (results / job_id).exists()


def test_half_written_files_are_removed_once_they_are_old(
    service: Service, results: Path, keeper: StorageKeeper
) -> None:
    job_id = service.finished_job()
    asides = [
        lay(results, name, age_s=age_s)
        for name, age_s in (
            (f"{job_id}/.00001.tar.abc", ORPHAN_S + 60),
            (".probe-1", ORPHAN_S + 60),
            (f"{job_id}/.00002.tar.abc", 60),
        )
    ]

    assert sweep(keeper, time.time()) == 2

    assert [path.exists() for path in asides] == [False, False, True]
    assert (results / ".masan-owner").exists()


@pytest.mark.parametrize(("moved_s", "is_there"), [(-DAY_S, True), (DAY_S, False)])
def test_sweeping_goes_by_the_clock_that_is_given(
    results: Path, keeper: StorageKeeper, moved_s: float, is_there: bool
) -> None:
    orphan = lay(results, f"{ORPHAN}/00000.tar", age_s=0)

    sweep(keeper, time.time() + moved_s)

    assert orphan.exists() == is_there


def test_sweeping_is_rare_also_when_the_clock_was_put_back(results: Path, keeper: StorageKeeper) -> None:
    now = time.time()
    sweep(keeper, now)
    lay(results, f"{ORPHAN}/00000.tar", age_s=10 * DAY_S)

    found = [sweep(keeper, now + moved) for moved in (SWEEP_S - 1, -SWEEP_S + 1, -2 * DAY_S)]

    assert found == [0, 0, 1]


def test_another_redis_s_results_are_left_alone(
    service: Service, results: Path, keeper: StorageKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    sweep(keeper, time.time())
    service.redis.flushall()
    orphan = lay(results, f"{ORPHAN}/00000.tar", age_s=10 * DAY_S)

    assert sweep(keeper, time.time()) == 0

    assert orphan.exists()
    assert "result store belongs to another Redis" in caplog.text


def test_a_sweep_ends_when_the_lock_is_lost(results: Path, keeper: StorageKeeper) -> None:
    orphan = lay(results, f"{ORPHAN}/00000.tar", age_s=10 * DAY_S)

    def lost() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        keeper.sweep(time.time(), cast("Callable[[], object]", lost))

    assert orphan.exists()


def test_a_result_of_a_frozen_worker_is_swept(service: Service, results: Path, keeper: StorageKeeper) -> None:
    """It wrote its shard after the job had expired and its files were deleted."""
    job_id = str(service.submit(n=10)["id"])
    spec = service.spec(job_id)
    ledger: JobLedger = service.ledger
    ledger.transition(job_id, JobStatus.EXPIRED, allowed_from=(JobStatus.QUEUED,), now=service.clock())
    ledger.delete(job_id, now=service.clock())
    assert ledger.collect(job_id, now=service.clock())
    ledger.forget(spec, record_ttl_s=60)

    service.make_chunk(spec.chunk(0))
    assert (results / job_id).exists()
    sweep(keeper, time.time() + ORPHAN_S + 60)

    assert not (results / job_id).exists()
    assert stored_bytes(service) == 0
