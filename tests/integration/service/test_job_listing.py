"""GET /jobs: pages that neither skip nor repeat, by state, class and tenant."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.store import Checkpoint
from service.context import Services
from service.errors import InvalidParameterError
from service.ids import new_job_id
from service.jobs.generation import GenerationRequest, class_counts
from service.jobs.listing import Cursor
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys

pytestmark = pytest.mark.integration


def listed(service: Service, **parameters: str | int) -> list[str]:
    """Ids over all pages, each page reached by the `Link` of the one before."""
    found: list[str] = []
    response = service.client.get("/jobs", params=parameters)
    while True:
        assert response.status_code == 200, response.text
        body = response.json()
        found += [job["id"] for job in body["jobs"]]
        if body["next_cursor"] is None:
            assert "link" not in response.headers
            return found
        response = service.client.get(response.links["next"]["url"])


def test_pages_are_newest_first(service: Service) -> None:
    made = [str(service.submit(n=n)["id"]) for n in range(1, 6)]

    assert listed(service, limit=2) == made[::-1]
    assert listed(service, limit=5) == made[::-1]


def test_jobs_of_one_instant_are_neither_skipped_nor_repeated(service: Service) -> None:
    made = [str(service.submit(n=1)["id"]) for _ in range(7)]
    service.redis.zadd(keys.JOB_INDEX, dict.fromkeys(made, 1_700_000_000.123))

    assert listed(service, limit=2) == sorted(made, reverse=True)


def test_more_than_a_block_of_one_instant_is_walked(service: Service) -> None:
    ghosts = [new_job_id(index / 7) for index in range(250)]
    service.redis.zadd(keys.JOB_INDEX, dict.fromkeys(ghosts, 5.0))
    oldest = str(service.submit()["id"])
    service.redis.zadd(keys.JOB_INDEX, {oldest: 1.0})

    assert listed(service, limit=1) == [oldest]


def test_job_made_between_two_pages_moves_nothing(service: Service) -> None:
    made = [str(service.submit(n=1)["id"]) for _ in range(4)]
    first = service.client.get("/jobs?limit=2").json()
    service.submit(n=1)

    second = service.client.get("/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [job["id"] for job in second["jobs"]] == made[1::-1]


def test_filters_keep_to_their_kind(service: Service) -> None:
    pro_b = str(service.submit(n=2)["id"])
    benign = str(service.submit(n=2, **{"class": "benign"})["id"])
    mixed = service.client.post("/generate", json={"mix": {"benign": 3, "pro_b": 1}}).json()["id"]
    service.client.post(f"/jobs/{benign}/cancel")

    assert listed(service, limit=1, **{"class": "benign"}) == [mixed, benign]
    assert listed(service, status="canceled") == [benign]
    assert listed(service, **{"status": "queued", "class": "pro_b"}) == [mixed, pro_b]
    assert listed(service, status="expired") == []


def test_filters_stay_in_the_link_of_the_next_page(service: Service) -> None:
    for _ in range(3):
        service.submit(n=1)

    link = service.client.get("/jobs?status=queued&class=pro_b&limit=1").links["next"]["url"]

    assert {"status", "class", "limit", "cursor"} <= set(httpx.URL(link).params)


def test_job_the_service_made_for_itself_is_not_listed(
    service: Service, settings: ServiceSettings, checkpoint: Checkpoint
) -> None:
    services = Services.build(settings, service.clock)
    request = GenerationRequest(
        checkpoint=checkpoint,
        parts=class_counts(checkpoint.manifest, {"pro_b": 1}),
        seed=1,
        is_listed=False,
        ttl_s=60.0,
    )
    job = services.jobs.submit(request, service.clock())
    services.close()

    assert listed(service) == []
    assert service.client.get(f"/jobs/{job.job_id}").status_code == 200
    assert job.expires_at - job.created_at == 60


@pytest.mark.parametrize("query", ["status=lost", "limit=0", "limit=201", "limit=1.5", "cursor="])
def test_wrong_value_is_refused_by_name(service: Service, query: str) -> None:
    response = service.client.get(f"/jobs?{query}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["name"] == query.partition("=")[0]
    assert response.json()["errors"][0]["allowed"]


@pytest.fixture(scope="module")
def keyed(
    settings: ServiceSettings, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service with keys of two labs and of an administrator."""
    lines = [
        json.dumps(
            {"id": name, "sha256": hashlib.sha256(key_of(name).encode()).hexdigest(), "scopes": scopes}
        )
        for name, scopes in {
            "lab-a": ["generate", "jobs:read", "jobs:write"],
            "lab-b": ["generate", "jobs:read", "jobs:write"],
            "root": ["admin"],
        }.items()
    ]
    path: Path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    path.write_text("\n".join(lines))
    with running(settings.model_copy(update={"api_keys_file": path}), Clock(), checkpoint) as service:
        yield service


def key_of(name: str) -> str:
    return f"mk_key-of-{name}-0123456789"


def test_tenants_see_their_own_jobs_alone(keyed: Service, redis_url: str) -> None:
    keyed.register_worker()
    made = {}
    for name in ("lab-a", "lab-b"):
        keyed.client.headers["Authorization"] = f"Bearer {key_of(name)}"
        made[name] = str(keyed.submit(n=1)["id"])

    seen = {}
    for name in ("lab-a", "lab-b", "root"):
        keyed.client.headers["Authorization"] = f"Bearer {key_of(name)}"
        seen[name] = listed(keyed)

    assert seen == {
        "lab-a": [made["lab-a"]],
        "lab-b": [made["lab-b"]],
        "root": [made["lab-b"], made["lab-a"]],
    }


def test_job_of_another_tenant_is_as_unknown_as_none(keyed: Service, redis_url: str) -> None:
    keyed.register_worker()
    keyed.client.headers["Authorization"] = f"Bearer {key_of('lab-a')}"
    job_id = str(keyed.submit(n=1)["id"])
    keyed.client.headers["Authorization"] = f"Bearer {key_of('lab-b')}"
    asked = [
        ("GET", ""),
        ("GET", "/result"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ]

    answers = [keyed.client.request(method, f"/jobs/{job_id}{path}") for method, path in asked]

    assert [answer.status_code for answer in answers] == [404] * len(asked)
    unknown = keyed.client.get("/jobs/job_01KAQ3V5T8X2M4N6P8R0S2T4V6").json()
    assert answers[0].json()["detail"] == unknown["detail"].replace("job_01KAQ3V5T8X2M4N6P8R0S2T4V6", job_id)
    keyed.client.headers["Authorization"] = f"Bearer {key_of('root')}"
    assert keyed.client.get(f"/jobs/{job_id}").json()["status"] == "queued"


@given(created_at=st.floats(0, 1e11, allow_subnormal=False), now=st.floats(0, 1e10, allow_subnormal=False))
def test_cursor_is_read_back_exactly(created_at: float, now: float) -> None:
    cursor = Cursor(created_at, new_job_id(now))

    assert Cursor.parse(str(cursor)) == cursor
    assert len(str(cursor)) <= 64


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda raw: raw.hex()))
def test_whatever_is_no_cursor_is_refused_by_name(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except InvalidParameterError as error:
        assert [field.name for field in error.errors] == ["cursor"]
    else:
        assert str(cursor) == text
        assert math.isfinite(cursor.created_at)
