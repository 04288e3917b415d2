"""The body of POST /generate: what of a webhook is accepted, what is refused by name, what is never shown."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service.harness import Service
from tests.integration.service.webhook_receiver import ask

pytestmark = pytest.mark.integration

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def test_no_answer_shows_a_secret(service: Service) -> None:
    job_id = ask(service, {"url": "http://127.0.0.1/", "secret": SECRET})

    for path in (f"/jobs/{job_id}", "/jobs", "/metrics"):
        assert SECRET not in service.client.get(path).text
    misplaced = {"url": SECRET, "secret": SECRET + "!", "events": [SECRET], "sceret": SECRET}
    refused = service.client.post("/generate?class=pro_b&n=1", json={"webhook": misplaced, "w": SECRET})
    assert refused.status_code == 422
    assert SECRET not in refused.text
    assert {error["name"] for error in refused.json()["errors"]} == {
        "webhook.secret",
        "webhook.events.0",
        "webhook.sceret",
        "w",
    }


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"webhook": {"url": "https://127.0.0.1/"}}', ""),
        ('{"webhook": {"url": "https://10.0.0.1/"}}', "webhook.url"),
        ('{"webhook": {"url": "https://169.254.169.254/latest"}}', "webhook.url"),
        ('{"webhook": {"url": "https://[::ffff:10.0.0.1]/"}}', "webhook.url"),
        ('{"webhook": {"url": "https://[fe80::1]/"}}', "webhook.url"),
        ('{"webhook": {"url": "http://8.8.8.8/"}}', "webhook.url"),
        ('{"webhook": {"url": "https://8.8.8.8/", "secret": "whsec_c2hvcnQ="}}', "webhook.secret"),
        ('{"webhook": {"url": "https://8.8.8.8/", "secret": "secret"}}', "webhook.secret"),
        ('{"webhook": {"url": "https://8.8.8.8/", "events": []}}', "webhook.events"),
        ('{"webhook": {"url": "https://8.8.8.8/", "events": ["running"]}}', "webhook.events.0"),
        ('{"webhook": {"secret": null}}', "webhook.url"),
        ('{"webhook": {"url": 1}}', "webhook.url"),
        ('{"webhook": "https://8.8.8.8/"}', "webhook"),
        ('{"colour": {}}', "colour"),
        ("[]", "body"),
        ("{", "body"),
        ("\xff", "body"),
        (" " * 20_000, "body"),
    ],
)
def test_a_body_is_refused_by_the_name_of_its_field(service: Service, body: str, name: str) -> None:
    jobs = service.client.get("/jobs").json()["jobs"]

    response = service.client.post(
        "/generate?class=pro_b&n=1",
        content=body.encode("latin-1"),
        headers={"Content-Type": "application/json"},
    )

    if not name:  # loopback is allowed to these tests
        assert response.status_code == 202
        return
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["name"] for error in response.json()["errors"]] == [name]
    assert service.client.get("/jobs").json()["jobs"] == jobs


def test_a_body_of_another_type_is_refused_and_none_is_fine(service: Service) -> None:
    form = service.client.post("/generate?class=pro_b&n=1", data={"webhook": "x"})

    assert (form.status_code, form.json()["errors"][0]["name"]) == (422, "body")
    for body in ("{}", '{"webhook": null}'):
        headers = {"Content-Type": "application/json; charset=utf-8"}
        accepted = service.client.post("/generate?class=pro_b&n=1", content=body, headers=headers)
        assert accepted.status_code == 202


@pytest.mark.parametrize("module", ["masan.webhook_worker", "masan.report_worker", "service"])
def test_networks_that_are_none_keep_the_process_from_starting(tmp_path: Path, module: str) -> None:
    environment = os.environ | {
        "MASAN_MODEL_STORE_URL": str(tmp_path),
        "MASAN_RESULT_STORE_URL": str(tmp_path),
        "MASAN_WEBHOOK_NETWORKS": "everywhere",
    }

    done = subprocess.run(
        [sys.executable, "-m", module, *(["--webhooks"] if module != "service" else [])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "MASAN_WEBHOOK_NETWORKS = 'everywhere'" in done.stderr
