"""A version's report over HTTP: JSON for programs, a page for browsers, nothing where there is none."""

import hashlib

import pytest

from model_store.manifest import FileEntry
from model_store.report import QualityReport
from model_store.report_page import REPORT_PAGE_FILE, render_report
from model_store.store import ModelStore
from tests.checkpoints import publish_tiny
from tests.full_report import full_report
from tests.integration.service.harness import Service

PATH = "/models/tiny/versions/1/report"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.integration
def test_report_is_json_by_default(service: Service) -> None:
    response = service.client.get(PATH)

    report = QualityReport.model_validate_json(response.text)
    assert response.headers["content-type"] == "application/json"
    assert report.digest == service.checkpoint.digest
    assert report.primary.classes["pro_b"].frechet_distance == 60.5


@pytest.mark.integration
def test_browser_gets_a_page_that_can_run_nothing(service: Service) -> None:
    response = service.client.get(PATH, headers={"Accept": BROWSER})

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in response.headers["content-security-policy"]
    assert response.headers["vary"] == "Accept"
    assert "Quality report of tiny@1" in response.text
    assert "60.5" in response.text


@pytest.mark.integration
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_unchanged_report_is_not_sent_again(service: Service, accept: str) -> None:
    first = service.client.get(PATH, headers={"Accept": accept})
    headers = {"Accept": accept, "If-None-Match": first.headers["etag"]}

    again = service.client.get(PATH, headers=headers)

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.integration
def test_page_and_json_have_each_their_etag(service: Service) -> None:
    tags = {service.client.get(PATH, headers={"Accept": a}).headers["etag"] for a in ("text/html", "*/*")}

    assert len(tags) == 2


@pytest.mark.integration
def test_page_that_was_published_is_the_one_that_is_served(service: Service) -> None:
    store = ModelStore(service.settings.model_store_url)
    manifest = service.checkpoint.manifest
    report = full_report(manifest.digest)
    files = {
        "report.json": report.model_dump_json().encode(),
        REPORT_PAGE_FILE: render_report(report, checkpoint="published with this name").encode(),
    }
    entries = tuple(
        FileEntry(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for path, content in files.items()
    )
    files["weights.safetensors"] = store.read_file(service.checkpoint, "weights.safetensors")
    store.publish(manifest.model_copy(update={"name": "paged", "reports": entries}), files)

    response = service.client.get("/models/paged/versions/1/report", headers={"Accept": BROWSER})

    assert response.content == files[REPORT_PAGE_FILE]


@pytest.mark.integration
def test_absent_report_is_a_problem_whatever_was_asked_for(service: Service) -> None:
    publish_tiny(ModelStore(service.settings.model_store_url), "bare")

    for version in ("bare/versions/1", "bare/versions/7", "absent/versions/1"):
        for accept in ("application/json", "text/html"):
            response = service.client.get(f"/models/{version}/report", headers={"Accept": accept})

            assert (response.status_code, response.json()["code"]) == (404, "not_found")
            assert response.headers["content-type"] == "application/problem+json"
