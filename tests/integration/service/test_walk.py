"""A walk between two seeds, asked for over HTTP: what it takes, and that each frame is an ordinary image."""

from urllib.parse import parse_qs, urlsplit

import pytest

from model_store.certificate import read_certificate
from tests.integration.service.harness import Service

pytestmark = pytest.mark.integration

WALK: dict[str, str | int] = {"class": "pro_b", "n": 5, "seed": 7, "walk_to_seed": 8, "gate": "off"}


def test_a_walk_is_a_job_whose_frames_have_ids_of_their_own(service: Service) -> None:
    job = service.submit(**WALK)
    service.finish(str(job["id"]))

    spec = service.spec(str(job["id"]))
    requests = list(spec.chunks())
    assert job["walk_to_seed"] == "8"
    assert [(request.walk.to_seed, request.walk.frames) for request in requests if request.walk] == [(8, 5)]
    certificate = service.client.get(f"/jobs/{job['id']}/certificate")
    assert certificate.json()["walk_to_seed"] == "8"
    assert read_certificate(certificate.content) is not None


def test_other_certificates_say_nothing_of_walks(service: Service) -> None:
    job_id = service.finished_job()

    assert "walk_to_seed" not in service.client.get(f"/jobs/{job_id}/certificate").json()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n": 1}, "n"),
        ({"n": 1001}, "n"),
        ({"walk_to_seed": 7}, "walk_to_seed"),
        ({"walk_to_seed": "x"}, "walk_to_seed"),
        ({"gate": "default"}, "gate"),
    ],
)
def test_what_is_no_walk_is_refused_by_name(
    service: Service, changes: dict[str, str | int], field: str
) -> None:
    answer = service.client.post("/generate", params=WALK | changes)

    assert answer.status_code == 422
    assert [error["name"] for error in answer.json()["errors"]] == [field]


def test_a_walk_has_one_class(service: Service) -> None:
    params = {name: value for name, value in WALK.items() if name not in {"class", "n"}}

    answer = service.client.post("/generate", params=params, json={"mix": {"benign": 2, "pro_b": 3}})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["name"] == "walk_to_seed"


def test_what_makes_an_expired_walk_again_is_that_walk(service: Service) -> None:
    job_id = service.submit(**WALK)["id"]
    service.client.delete(f"/jobs/{job_id}")

    gone = service.client.get(f"/jobs/{job_id}")

    link = gone.headers["Link"].partition("<")[2].partition(">")[0]
    assert parse_qs(urlsplit(link).query)["walk_to_seed"] == ["8"]
