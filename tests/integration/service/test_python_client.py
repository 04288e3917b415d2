"""`masan.Client` and `AsyncClient` against a running service."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from masan import ApiError, AsyncClient, Client, JobFailedError
from masan.api_flows import GenerateOptions
from masan.archive_digests import check_archive
from masan.errors import ArchiveCorruptedError, ConflictError, InvalidRequestError, NotFoundError
from tests.integration.service.harness import Service
from tests.meanwhile import meanwhile

pytestmark = pytest.mark.integration


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(str(service.client.base_url)) as client:
        yield client


def test_every_parameter_reaches_the_job(client: Client) -> None:
    asked: GenerateOptions = {
        "mix": {"pro_b": 2, "benign": 1},
        "seed": 2**64 - 1,
        "truncation": 0.7,
        "model": "tiny@1",
        "format": "tar",
        "image_format": "jpeg",
        "quality": 80,
        "gate": "off",
        "priority": "interactive",
        "deadline_s": 600,
        "metadata": {"study": "b"},
        "idempotency_key": "once",
    }

    job, again = (client.submit(**asked) for _ in range(2))

    assert again.id == job.id
    assert (job.n, job.seed, job.model, job.format) == (3, 2**64 - 1, "tiny@1", "tar")
    assert job.classes == {"pro_b": 2, "benign": 1}
    kept = {name: job.body[name] for name in ("truncation", "image_format", "quality", "gate", "metadata")}
    assert kept == {
        "truncation": 0.7,
        "image_format": "jpeg",
        "quality": 80,
        "gate": "off",
        "metadata": {"study": "b"},
    }
    assert job.body["deadline_at"] is not None
    assert job.body["priority"] == "interactive"


def test_a_walk_is_asked_for(client: Client) -> None:
    job = client.submit("pro_b", 5, seed=7, walk_to_seed=2**64 - 1, gate="off")

    assert (job.n, job.body["walk_to_seed"]) == (5, str(2**64 - 1))


def test_an_unknown_parameter_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(TypeError, match="no parameter 'sed'"):
        client.submit("pro_b", 1, sed=5)  # type: ignore[call-arg]


def test_wait_sees_the_job_end_by_its_events(service: Service, client: Client) -> None:
    job = client.submit("pro_b", 40, seed=7)
    seen: list[int] = []

    with meanwhile(lambda: service.finish(job.id), after_s=0.3):
        done = client.wait(job, lambda now: seen.append(now.done), timeout_s=15)

    assert (done.status, done.done) == ("succeeded", 40)
    assert seen == sorted(seen)


def test_wait_does_not_go_back_to_what_was_before_its_first_look(service: Service, client: Client) -> None:
    job = client.submit("pro_b", 40, seed=7)
    first, second, *rest = service.spec(job.id).chunks()
    for request in (first, second):
        service.make_chunk(request)
    seen: list[tuple[str, int]] = []

    def make_rest() -> None:
        for request in rest:
            service.make_chunk(request)

    with meanwhile(make_rest, after_s=0.3):
        client.wait(job, lambda now: seen.append((now.status, now.done)), timeout_s=15)

    assert rest and seen[0] == ("running", first.count + second.count)
    assert {status for status, _ in seen} == {"running", "succeeded"}
    assert [done for _, done in seen] == sorted(done for _, done in seen)


def test_a_canceled_job_raises_its_end(service: Service, client: Client) -> None:
    job = client.submit("pro_b", 3)

    with (
        meanwhile(lambda: client.cancel(job), after_s=0.3),
        pytest.raises(JobFailedError, match="canceled"),
    ):
        client.wait(job, timeout_s=15)


@pytest.mark.parametrize("archive_format", ["zip", "tar", "npz", "parquet"])
def test_every_format_is_fetched_and_checked(
    service: Service, client: Client, tmp_path: Path, archive_format: str
) -> None:
    job_id = service.finished_job(n=12, format=archive_format)
    told: list[tuple[int, int | None]] = []

    path = client.download(job_id, tmp_path / "archive", lambda done, total: told.append((done, total)))

    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert [each.name for each in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("archive_format", ["zip", "tar", "npz"])
def test_damage_anywhere_in_an_archive_is_found(
    service: Service, client: Client, tmp_path: Path, archive_format: str
) -> None:
    path = client.download(service.finished_job(n=12, format=archive_format), tmp_path / "archive")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(ArchiveCorruptedError):
        check_archive(path)


def test_a_download_goes_on_with_what_another_process_left(
    service: Service, client: Client, tmp_path: Path
) -> None:
    job_id = service.finished_job(n=12)
    whole = client.download(job_id, tmp_path / "whole").read_bytes()
    told: list[int] = []

    def stop(done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.download(job_id, tmp_path / "again", stop)
    left = (tmp_path / "again.part").stat().st_size
    (tmp_path / "again.part").write_bytes(whole[: left // 2])
    client.download(job_id, tmp_path / "again", lambda done, _total: told.append(done))

    assert (tmp_path / "again").read_bytes() == whole
    assert told[0] > left // 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", "whole"]


def test_what_was_left_of_another_job_is_not_joined(service: Service, client: Client, tmp_path: Path) -> None:
    first, second = service.finished_job(n=12, seed=1), service.finished_job(n=12, seed=2)

    def stop(done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.download(first, tmp_path / "archive", stop)
    client.download(second, tmp_path / "archive")

    check_archive(tmp_path / "archive")


def test_shards_come_while_the_job_runs(service: Service, client: Client, tmp_path: Path) -> None:
    job = client.submit("pro_b", 40, seed=7)
    service.make_chunk(service.spec(job.id).chunk(1))
    shards = client.shards(job)

    first = next(shards)
    assert client.job(job).status == "running"
    service.finish(job.id)
    rest = list(shards)

    assert first.index == 1
    assert sorted(shard.index for shard in [first, *rest]) == list(range(service.spec(job.id).chunk_count))
    assert sum(shard.count for shard in [first, *rest]) == 40
    path = client.download_shard(first, tmp_path / "shard.tar")
    assert path.stat().st_size == first.size_bytes


def test_images_come_one_by_one(service: Service, client: Client) -> None:
    job_id = service.finished_job(n=5)

    rows = list(client.images(job_id))

    assert [row["index"] for row in rows] == list(range(5))
    assert client.image(job_id, 3).startswith(b"\x89PNG")


def test_jobs_are_listed_over_all_pages(service: Service, client: Client) -> None:
    made = [str(service.submit(n=1)["id"]) for _ in range(5)]

    assert [job.id for job in client.jobs()] == made[::-1]
    assert [job.id for job in client.jobs(limit=2)] == made[:2:-1]
    assert list(client.jobs(status="failed")) == []
    assert list(client.jobs(class_="benign")) == []


def test_cancel_retry_and_delete(service: Service, client: Client) -> None:
    job = client.submit("pro_b", 3)

    assert client.cancel(job).status in {"canceled", "canceling"}
    assert client.retry(job).body["attempt"] == 2
    client.delete(job)

    with pytest.raises(ApiError) as caught:
        client.job(job)
    assert caught.value.status == 410


def test_models_classes_reports_and_certificates(service: Service, client: Client) -> None:
    job_id = service.finished_job(n=2)

    assert client.models()["models"][0]["name"] == "tiny"
    assert client.model_card("tiny", "1")["manifest"]["name"] == "tiny"
    assert client.classes() == ["benign", "pro_b"]
    assert client.report("pro_b")["classes"]["pro_b"]["frechet_distance"] == 60.5
    assert client.quality_report("tiny", "1")["primary"]["extractor"] == "efficientnet-lite0"
    assert client.certificate_key().encode() in client.certificate(job_id)


@pytest.mark.parametrize(
    ("act", "error", "code"),
    [
        (lambda client: client.submit("pro_c", 1), InvalidRequestError, "unknown_class"),
        (lambda client: client.job("job_x"), NotFoundError, "not_found"),
        (lambda client: client.submit("pro_b", 0), InvalidRequestError, "invalid_parameter"),
    ],
)
def test_errors_have_their_type_and_their_problem(
    client: Client, act: Callable[[Client], object], error: type[ApiError], code: str
) -> None:
    with pytest.raises(error) as caught:
        act(client)

    assert caught.value.problem["status"] == caught.value.status
    assert caught.value.code


def test_a_result_that_is_not_there_yet_is_refused_at_once(client: Client, tmp_path: Path) -> None:
    job = client.submit("pro_b", 3)
    began = time.monotonic()

    with pytest.raises(ConflictError, match="not there yet"):
        client.download(job, tmp_path / "archive.zip")

    assert time.monotonic() - began < 3
    assert list(tmp_path.iterdir()) == []


def test_the_same_from_asyncio(service: Service, tmp_path: Path) -> None:
    async def main() -> tuple[str, list[int], int, list[str]]:
        async with AsyncClient(str(service.client.base_url)) as client:
            job = await client.submit("pro_b", 12, seed=7)
            with meanwhile(lambda: service.finish(job.id), after_s=0.3):
                names = [event.name async for event in client.events(job)]
                done = await client.wait(job)
            shards = [shard.index async for shard in client.shards(job)]
            path = await client.download(job, tmp_path / "archive.zip")
            jobs = [each.id async for each in client.jobs()]
            assert jobs == [job.id]
            return done.status, shards, path.stat().st_size, names

    status, shards, size, names = asyncio.run(main())

    assert (status, shards[0]) == ("succeeded", 0)
    assert size > 0
    assert names[-1] == "done"


def test_both_clients_have_the_same_methods() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)
