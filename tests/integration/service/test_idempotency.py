"""`Idempotency-Key`: one job and one answer, whoever sends the request how often."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from redis import Redis

from service.ids import new_job_id
from service.jobs.idempotency import KEPT_S, LEASE_S, Answer, Idempotency, RequestMark, Reservation
from tests.integration.service.harness import Service
from tests.meanwhile import meanwhile

pytestmark = pytest.mark.integration

ASK = "/generate?class=pro_b&n=3"


def ask(service: Service, key: str, path: str = ASK, **changes: object) -> httpx.Response:
    return service.client.post(path, headers={"Idempotency-Key": key}, **changes)  # type: ignore[arg-type]


def jobs_of(service: Service) -> list[str]:
    return [job["id"] for job in service.client.get("/jobs").json()["jobs"]]


def key_in_redis(service: Service) -> str:
    (key,) = service.redis.keys("masan:idempotency:*")
    return str(key)


def test_twenty_racing_threads_make_one_job(service: Service) -> None:
    barrier = threading.Barrier(20)

    def race(_: int) -> httpx.Response:
        with httpx.Client(base_url=service.client.base_url, timeout=20, trust_env=False) as client:
            barrier.wait()
            while True:
                response = client.post(ASK, headers={"Idempotency-Key": "race"})
                if response.status_code != 409:
                    return response
                assert response.json()["code"] == "idempotency_conflict"
                assert int(response.headers["retry-after"]) > 0

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(race, range(20)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert jobs_of(service) == [answers[0].json()["id"]]


def test_same_request_gets_the_first_answer_again(service: Service) -> None:
    before = service.metric("masan_idempotent_replays_total")
    first = ask(service, "k")
    service.finish(first.json()["id"])

    again = ask(service, "k", "/generate?n=3&class=pro_b")  # the order of parameters says nothing

    assert again.status_code == first.status_code
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("location", "link", "retry-after", "content-type", "cache-control", "vary"):
        assert again.headers[name] == first.headers[name]
    assert service.metric("masan_idempotent_replays_total") == before + 1
    assert 0 < service.redis.ttl(key_in_redis(service)) <= KEPT_S


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/generate?class=pro_b&n=4", {}),
        (f"{ASK}&seed=1", {}),
        (ASK, {"json": {"metadata": {"study": "b"}}}),
    ],
)
def test_another_request_with_the_key_is_refused(
    service: Service, path: str, changes: dict[str, object]
) -> None:
    made = ask(service, "k").json()["id"]

    other = ask(service, "k", path, **changes)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert other.json()["errors"][0]["name"] == "Idempotency-Key"
    assert jobs_of(service) == [made]


def test_other_deadline_in_the_header_is_another_request(service: Service) -> None:
    headers = {"Idempotency-Key": "k", "Cancel-After": "1m"}
    assert service.client.post(ASK, headers=headers).status_code == 202

    assert ask(service, "k").status_code == 422
    assert service.client.post(ASK, headers=headers | {"Cancel-After": "60s"}).status_code == 202


def test_another_key_makes_another_job(service: Service) -> None:
    assert ask(service, "a").json()["id"] != ask(service, "b").json()["id"]


def test_refused_request_leaves_its_key_free(service: Service) -> None:
    assert ask(service, "k", "/generate?class=pro&n=3").status_code == 422

    assert ask(service, "k").status_code == 202


def test_request_is_not_answered_twice_at_once(service: Service) -> None:
    answers: list[httpx.Response] = []

    def wait() -> None:
        headers = {"Idempotency-Key": "k", "Prefer": "wait=20"}
        with httpx.Client(base_url=service.client.base_url, timeout=30, trust_env=False) as client:
            answers.append(client.post(ASK, headers=headers))

    with meanwhile(wait):
        while not (made := jobs_of(service)):
            pass
        during = ask(service, "k")
        service.finish(made[0])
    after = ask(service, "k")

    assert (during.status_code, during.json()["code"]) == (409, "idempotency_conflict")
    assert (answers[0].status_code, answers[0].json()["status"]) == (200, "succeeded")
    assert after.content == answers[0].content
    assert after.status_code == 200


def test_archive_is_sent_again(service: Service) -> None:
    job_id = ask(service, "k").json()["id"]
    service.finish(job_id)
    headers = {"Idempotency-Key": "zip", "Accept": "application/zip"}

    def finish_it() -> None:
        while len(made := jobs_of(service)) < 2:
            pass
        service.finish(made[0])

    with meanwhile(finish_it):
        first = service.client.post(ASK, headers=headers)
    again = service.client.post(ASK, headers=headers)

    assert first.headers["content-type"] == again.headers["content-type"] == "application/zip"
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    assert len(jobs_of(service)) == 2


@pytest.mark.parametrize("made", [True, False])
def test_key_of_a_process_that_died_is_free_within_seconds(service: Service, made: bool) -> None:
    """As after SIGKILL between reservation and answer, before or after the job was written."""
    first = ask(service, "k").json()["id"]
    key = key_in_redis(service)
    service.redis.hdel(key, "answer")
    service.redis.hset(key, "leased_until", service.clock() + LEASE_S)
    if not made:
        service.redis.delete(*service.redis.keys("masan:job*"))

    held = ask(service, "k")
    service.clock.offset_s = LEASE_S + 1
    service.register_worker()
    after = ask(service, "k")

    assert held.status_code == 409
    assert (after.status_code, after.json()["id"]) == (202, first)
    assert jobs_of(service) == [first]
    assert ask(service, "k").content == after.content


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "é", "tab\there"])
def test_key_that_is_none_is_refused_by_name(service: Service, key: str) -> None:
    response = service.client.post(ASK, headers=[(b"Idempotency-Key", key.encode("latin-1"))])

    assert response.status_code == 422
    assert response.json()["errors"][0]["name"] == "Idempotency-Key"
    assert jobs_of(service) == []


def test_key_given_twice_is_refused(service: Service) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]

    assert service.client.post(ASK, headers=headers).status_code == 422


def test_longest_key_is_taken(service: Service) -> None:
    assert ask(service, "~" * 255).status_code == 202


@pytest.fixture
def idempotency(redis: "Redis") -> Idempotency:
    return Idempotency(redis, Counter("replays", "In this test", registry=CollectorRegistry()))


MARK = RequestMark.of("POST", "/generate", [("n", "1")], b"")
NOW = 1_000.0


def reserve(idempotency: Idempotency, tenant: str = "", now: float = NOW) -> Reservation:
    held = idempotency.reserve(tenant, "k", MARK, job_id=new_job_id(now), now=now)
    assert isinstance(held, Reservation)
    return held


def test_tenants_do_not_share_keys(idempotency: Idempotency) -> None:
    assert reserve(idempotency, "lab-a").job_id != reserve(idempotency, "lab-b").job_id


def test_renewed_lease_holds(idempotency: Idempotency) -> None:
    held = reserve(idempotency)
    idempotency.renew(held, NOW + LEASE_S - 1)

    with pytest.raises(Exception, match="is being answered"):
        reserve(idempotency, now=NOW + LEASE_S + 1)


def test_who_lost_the_lease_changes_nothing(idempotency: Idempotency) -> None:
    late = reserve(idempotency)
    taker = reserve(idempotency, now=NOW + LEASE_S)
    idempotency.release(late, NOW + LEASE_S)
    idempotency.renew(late, NOW + 100)

    kept = idempotency.complete(taker, Answer("body", taker.job_id, 202, {"A": "b"}, "first"))
    second = idempotency.complete(late, Answer("body", late.job_id, 202, {}, "second"))

    assert taker.job_id == late.job_id
    assert kept == second
    assert idempotency.reserve("", "k", MARK, job_id="other", now=NOW + 200) == kept
