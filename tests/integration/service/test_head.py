"""HEAD tells of every resource what GET would, without its body."""

import time

import pytest

from service.app import create_app
from service.settings import ServiceSettings
from tests.integration.service.harness import Service

pytestmark = pytest.mark.integration

_OF_ONE_ANSWER = {"date", "x-request-id", "transfer-encoding", "content-length", "age"}
_DRAWN = "/images/{image_id}"
"""Asks a worker, of which there is none here."""


def _paths() -> list[str]:
    app = create_app(ServiceSettings(model_store_url="unused", result_store_url="unused"))
    return [path for path, item in app.openapi()["paths"].items() if "get" in item and path != _DRAWN]


@pytest.mark.parametrize("path", [*_paths(), "/openapi.json", "/nothing", "/generate"])
def test_head_answers_as_get_does(service: Service, path: str) -> None:
    values = {"job_id": service.finished_job(), "name": "tiny", "version": "1", "alias": "production"}
    url = path.format(**values, index=0, i=0, report_id="rep_x")

    head = service.client.head(url)

    with service.client.stream("GET", url) as got:
        assert head.status_code == got.status_code
        assert head.content == b""
        differing = {
            name for name in {*head.headers, *got.headers} if head.headers.get(name) != got.headers.get(name)
        }
        assert differing <= _OF_ONE_ANSWER, differing


def test_head_of_an_event_stream_ends_at_once_and_leaves_its_place(service: Service) -> None:
    job_id = service.submit()["id"]

    head = service.client.head(f"/jobs/{job_id}/events")

    assert head.headers["content-type"].startswith("text/event-stream")
    deadline = time.monotonic() + 5
    while service.metric("masan_sse_streams") and time.monotonic() < deadline:
        time.sleep(0.02)  # the place is given back after the answer has gone out
    assert service.metric("masan_sse_streams") == 0


def test_head_is_counted_under_its_own_name(service: Service) -> None:
    service.client.head("/livez")

    assert service.metric('masan_http_requests_total{code="200",method="HEAD",route="/livez"}') >= 1
