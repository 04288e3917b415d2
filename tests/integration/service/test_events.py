"""GET /jobs/{id}/events: every event once, in order, over broken connections, retries and trimmed streams."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from masan.client import Client
from model_store.store import Checkpoint
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys
from worker.contract.messages import JobStatus

pytestmark = pytest.mark.integration

STREAMS = 4


@pytest.fixture(scope="module")
def module_service(settings: ServiceSettings, checkpoint: Checkpoint) -> Iterator[Service]:
    """A service with few streams and an impatient keep-alive."""
    changes = {"max_event_streams": STREAMS, "event_keepalive_s": 0.2}
    with running(settings.model_copy(update=changes), Clock(), checkpoint) as service:
        yield service


@dataclass(frozen=True)
class Seen:
    """An event as a client gets it."""

    id: str
    name: str
    data: dict[str, object]


def events_in(lines: Iterator[str]) -> Iterator[Seen]:
    """Server-sent events; comments and empty ones are dropped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Seen(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}


@contextmanager
def following(service: Service, job_id: str, **request: object) -> Iterator[Iterator[Seen]]:
    with service.client.stream("GET", f"/jobs/{job_id}/events", **request) as response:  # type: ignore[arg-type]
        assert response.status_code == 200, response.read()
        yield events_in(response.iter_lines())


def follow(service: Service, job_id: str, **request: object) -> list[Seen]:
    """All events until the stream ends."""
    with following(service, job_id, **request) as events:
        return list(events)


def wait_for_streams(service: Service, count: int) -> None:
    deadline = time.monotonic() + 5
    while service.metric("masan_sse_streams") != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_finished_job_is_told_from_its_beginning(service: Service) -> None:
    job_id = service.finished_job(n=20)

    with service.client.stream("GET", f"/jobs/{job_id}/events") as response:
        events = list(events_in(response.iter_lines()))

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    told = [(event.name, event.data.get("status") or event.data.get("done")) for event in events]
    assert told[:2] == [("status", "queued"), ("status", "running")]
    assert [entry for entry in told if entry[0] == "progress"] == [("progress", n) for n in (2, 18, 20)]
    assert told[-1] == ("done", "succeeded")
    in_redis = [event_id for event_id, _ in service.redis.xrange(keys.events_key(job_id))]  # type: ignore[union-attr]
    assert [event.id for event in events] == in_redis


def test_shard_event_tells_what_can_be_fetched(service: Service) -> None:
    job_id = service.finished_job(n=20)

    shards = [event.data for event in follow(service, job_id) if event.name == "shard"]

    assert [(shard["chunk_index"], shard["class"], shard["count"]) for shard in shards] == [
        (0, "pro_b", 2),
        (1, "pro_b", 16),
        (2, "pro_b", 2),
    ]
    for shard in shards:
        fetched = service.client.get(shard["links"]["shard"])  # type: ignore[index]
        assert len(fetched.content) == shard["bytes"]
        assert fetched.headers["etag"] == f'"{shard["sha256"]}"'


def test_events_come_while_the_job_runs(service: Service) -> None:
    job_id = str(service.submit(n=40)["id"])
    with following(service, job_id) as events:
        assert next(events).data == {"status": "queued"}

        started = time.monotonic()
        service.make_chunk(service.spec(job_id).chunk(0))

        assert [next(events).name for _ in range(3)] == ["status", "shard", "progress"]
        assert time.monotonic() - started < 2
        service.finish(job_id)
        assert [event.name for event in events][-1] == "done"


@pytest.mark.parametrize("how", ["header", "parameter"])
def test_client_that_comes_back_gets_the_rest_once(service: Service, how: str) -> None:
    job_id = service.finished_job(n=40)
    whole = follow(service, job_id)

    for position in (0, 3, len(whole) - 2):
        last = whole[position].id
        asked = (
            {"headers": {"Last-Event-ID": last}} if how == "header" else {"params": {"last_event_id": last}}
        )
        assert follow(service, job_id, **asked) == whole[position + 1 :]


def test_header_of_a_browser_that_comes_back_counts_before_its_url(service: Service) -> None:
    job_id = service.finished_job()
    whole = follow(service, job_id)

    asked = {"params": {"last_event_id": whole[0].id}, "headers": {"Last-Event-ID": whole[2].id}}

    assert follow(service, job_id, **asked) == whole[3:]


def test_client_that_has_all_is_told_to_stop(service: Service) -> None:
    job_id = service.finished_job()
    last = follow(service, job_id)[-1].id

    response = service.client.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": last})

    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("ending", [JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED])
def test_stream_ends_with_the_job_however_that_ends(service: Service, ending: JobStatus) -> None:
    job_id = str(service.submit(n=40)["id"])
    with following(service, job_id) as events:
        next(events)
        service.ledger.transition(job_id, ending, allowed_from=(JobStatus.QUEUED,), now=service.clock())

        assert [(event.name, event.data) for event in events] == [("done", {"status": ending})]


def test_retried_job_goes_on_after_its_first_end(service: Service) -> None:
    job_id = str(service.submit(n=20)["id"])
    service.client.post(f"/jobs/{job_id}/cancel")
    first = follow(service, job_id)
    service.client.post(f"/jobs/{job_id}/retry")
    service.finish(job_id)

    told = [(event.name, event.data.get("status")) for event in follow(service, job_id)]
    rest = follow(service, job_id, headers={"Last-Event-ID": first[-1].id})

    ends = [entry for entry in told if entry[0] in {"status", "done"}]
    assert ends == [
        ("status", "queued"),
        ("done", "canceled"),
        ("status", "queued"),
        ("status", "running"),
        ("done", "succeeded"),
    ]
    assert (rest[0].name, rest[0].data) == ("status", {"status": "queued"})


def test_lost_history_is_replaced_by_a_snapshot(service: Service) -> None:
    job_id = str(service.submit(n=100)["id"])
    first = service.redis.xrange(keys.events_key(job_id))[0][0]  # type: ignore[index]
    service.make_chunk(service.spec(job_id).chunk(0))
    service.redis.xtrim(keys.events_key(job_id), maxlen=1, approximate=False)

    for after in ({}, {"Last-Event-ID": first}):
        with following(service, job_id, headers=after) as events:
            snapshot = next(events)
            assert (snapshot.name, snapshot.data["id"], snapshot.data["status"]) == (
                "snapshot",
                job_id,
                "running",
            )
            assert snapshot.data["progress"]["done"] == 2  # type: ignore[index]
    with following(service, job_id, headers={"Last-Event-ID": snapshot.id}) as events:
        service.make_chunk(service.spec(job_id).chunk(1))
        assert next(events).name == "shard"


def test_snapshot_of_an_ended_job_is_followed_by_its_end(service: Service) -> None:
    job_id = service.finished_job(n=40)
    service.redis.xtrim(keys.events_key(job_id), maxlen=2, approximate=False)

    events = follow(service, job_id)

    assert [event.name for event in events] == ["snapshot", "done"]
    assert follow(service, job_id, headers={"Last-Event-ID": events[0].id}) == events[1:]


def test_long_history_is_told_whole(service: Service) -> None:
    """More than one batch."""
    job_id = str(service.submit(n=4)["id"])
    pipeline = service.redis.pipeline()
    for done in range(350):
        pipeline.xadd(keys.events_key(job_id), {"event": "progress", "data": json.dumps({"done": done})})
    pipeline.execute()
    service.client.post(f"/jobs/{job_id}/cancel")

    told = [event.data["done"] for event in follow(service, job_id) if event.name == "progress"]

    assert told == list(range(350))


def test_silence_is_broken_by_comments(service: Service) -> None:
    job_id = str(service.submit()["id"])
    with service.client.stream("GET", f"/jobs/{job_id}/events") as response:
        lines = response.iter_lines()
        comments = [
            line for line, _ in zip(lines, range(30), strict=False) if line.startswith(": keep-alive")
        ]

    assert len(comments) > 3


def test_streams_are_bounded_and_given_back(service: Service) -> None:
    job_id = str(service.submit()["id"])
    wait_for_streams(service, 0)
    clients = [httpx.Client(base_url=service.client.base_url, trust_env=False) for _ in range(STREAMS)]
    opened = [
        client.send(client.build_request("GET", f"/jobs/{job_id}/events"), stream=True) for client in clients
    ]
    wait_for_streams(service, STREAMS)

    refused = service.client.get(f"/jobs/{job_id}/events")
    asked = service.client.post("/generate?class=pro_b&n=1", headers={"Accept": "text/event-stream"})

    assert [answer.json()["code"] for answer in (refused, asked)] == ["too_many_streams"] * 2
    assert int(refused.headers["retry-after"]) > 0
    assert len(service.client.get("/jobs").json()["jobs"]) == 1
    for response, client in zip(opened, clients, strict=True):
        response.close()
        client.close()
    wait_for_streams(service, 0)


def test_generate_answers_with_the_events_of_its_job(service: Service) -> None:
    with service.client.stream(
        "POST", "/generate?class=pro_b&n=3", headers={"Accept": "text/event-stream"}
    ) as response:
        job_id = response.headers["location"].removeprefix("/jobs/")
        events = events_in(response.iter_lines())
        assert next(events).data == {"status": "queued"}
        service.finish(job_id)
        assert list(events)[-1].data == {"status": "succeeded"}


def test_the_client_follows_a_job_to_its_end(service: Service) -> None:
    with Client(str(service.client.base_url)) as client:
        job = client.generate(mix={"pro_b": 20, "benign": 2}, gate="off")
        events = client.events(job)
        first = next(events)
        service.finish(job.id)
        rest = list(events)

        assert first.data == {"status": "queued"}
        assert rest[-1].data == {"status": "succeeded"}
        assert list(client.events(job, after=rest[-1].id)) == []
        assert list(client.events(job, after=first.id)) == rest


@pytest.mark.parametrize(
    "value", ["x", "5", "-", "1-", "-1", "1-2-3", "1.5-0", f"{2**64}-0", "9" * 500, "٣-٣"]
)
def test_id_that_is_no_event_s_is_refused_by_name(service: Service, value: str) -> None:
    job_id = service.submit()["id"]

    response = service.client.get(f"/jobs/{job_id}/events", params={"last_event_id": value})

    assert response.status_code == 422
    assert response.json()["errors"][0]["name"] == "last_event_id"
    assert response.json()["errors"][0]["allowed"]


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=50))
def test_any_last_event_id_is_taken_or_refused(service: Service, value: str) -> None:
    response = service.client.get(
        "/jobs/job_01KAQ3V5T8X2M4N6P8R0S2T4V6/events", headers={"Last-Event-ID": value}
    )

    assert response.status_code in {404, 422}
    if response.status_code == 422:
        assert response.json()["errors"][0]["name"] == "Last-Event-ID"


def test_client_that_wants_no_events_is_told_so(service: Service) -> None:
    job_id = service.submit()["id"]

    response = service.client.get(f"/jobs/{job_id}/events", headers={"Accept": "application/json"})

    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize("job_id", ["nope", "job_01KAQ3V5T8X2M4N6P8R0S2T4V6"])
def test_unknown_job_has_no_events(service: Service, job_id: str) -> None:
    assert service.client.get(f"/jobs/{job_id}/events").status_code == 404


def test_service_that_stops_ends_its_streams(
    settings: ServiceSettings, checkpoint: Checkpoint, redis_url: str
) -> None:
    ended = threading.Event()

    def read(url: httpx.URL, job_id: str) -> None:
        with (
            httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
            client.stream("GET", f"/jobs/{job_id}/events") as response,
        ):
            list(response.iter_lines())
        ended.set()

    with running(settings, Clock(), checkpoint) as service:
        service.register_worker()
        job_id = str(service.submit()["id"])
        reader = threading.Thread(target=read, args=(service.client.base_url, job_id))
        reader.start()
        wait_for_streams(service, 1)
        started = time.monotonic()
    reader.join(5)

    assert ended.is_set()
    assert time.monotonic() - started < 4
