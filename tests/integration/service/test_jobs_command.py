"""`masan jobs|job|cancel|retry|delete|download` as a person types them, against a running service."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from masan.processes import ProcessRecord
from tests.integration.service.harness import Service
from tests.unit.masan.test_local import write_state

pytestmark = pytest.mark.integration


class Typed:
    """Runs `masan` with a service's URL."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._url, self._folder = str(service.client.base_url), folder

    def __call__(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "masan.cli", *args, "--url", self._url]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=50, check=False, cwd=self._folder
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--json").stdout)


@pytest.fixture
def masan(service: Service, tmp_path: Path) -> Typed:
    return Typed(service, tmp_path)


def test_jobs_are_listed_and_shown(service: Service, masan: Typed) -> None:
    done, queued = service.finished_job(n=3), str(service.submit(n=2)["id"])

    table, listed = masan("jobs").stdout, masan.json("jobs", "--status", "queued")
    shown, body = masan("job", done).stdout, masan.json("job", done)

    assert done in table and queued in table
    assert [job["id"] for job in listed["jobs"]] == [queued]
    assert "3 pro_b" in shown and "succeeded" in shown
    assert (body["id"], body["status"]) == (done, "succeeded")


def test_a_job_is_canceled_retried_and_deleted(service: Service, masan: Typed) -> None:
    job_id = str(service.submit(n=2)["id"])

    assert f"job {job_id} is cancel" in masan("cancel", job_id).stdout
    assert masan.json("retry", job_id)["attempt"] == 2
    assert masan.json("delete", job_id) == {"id": job_id, "status": "deleted"}
    refused = masan("job", job_id, code=1).stderr
    assert refused.count("\n") == 1


def test_an_archive_is_fetched_once(service: Service, masan: Typed, tmp_path: Path) -> None:
    job_id = service.finished_job(n=3)

    body = masan.json("download", job_id)
    again = masan("download", job_id, code=2).stderr
    masan("download", job_id, "--force", "-o", body["path"])

    assert body["path"] == f"pro_b-3-{job_id}.zip"
    with zipfile.ZipFile(tmp_path / body["path"]) as archive:
        assert len(archive.namelist()) == 5
    assert "exists; give --force" in again
    assert again.count("\n") == 1


@pytest.mark.parametrize("args", [["job", "job_x"], ["job", "../x"], ["jobs", "--status", "lost"]])
def test_bad_input_is_one_line_and_exit_code_2(masan: Typed, args: list[str]) -> None:
    said = masan(*args, code=2).stderr

    assert said.startswith("masan: ")
    assert said.count("\n") == 1


def test_a_drained_stack_s_jobs_can_be_looked_at(service: Service, tmp_path: Path) -> None:
    job_id, data_dir = service.finished_job(n=3), tmp_path / "data"
    write_state(data_dir, ProcessRecord.of("masan", os.getpid()), url=str(service.client.base_url))
    service.client.post("/admin/drain", json={"draining": True})
    assert service.client.get("/readyz").status_code == 503

    done = subprocess.run(
        [sys.executable, "-m", "masan.cli", "jobs", "--data-dir", str(data_dir), "--json"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert [job["id"] for job in json.loads(done.stdout)["jobs"]] == [job_id]


def test_models_are_listed_and_shown_by_the_server(masan: Typed) -> None:
    listed, card = masan.json("models", "list"), masan.json("models", "show", "tiny@production")

    assert [each["manifest"]["name"] for each in listed["checkpoints"]] == ["tiny"]
    assert card["manifest"]["version"] == "1"
    assert "no checkpoint 'huge'; there are: tiny@1" in masan("models", "show", "huge", code=2).stderr
