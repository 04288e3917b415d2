"""A report from the request to the figures, made by the process that `masan up` starts for it."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import needs_own_stack
from tests.e2e.running_stack import RunningStack, eventually, processes_in
from tests.smears import make_smear_dataset

pytestmark = [needs_own_stack, pytest.mark.timeout(300)]


@pytest.mark.chaos
def test_a_report_is_made_also_when_its_process_is_killed_once(
    tiny_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASAN_REPORT_DATA", str(make_smear_dataset(tmp_path / "smears", per_class=15)))
    monkeypatch.setenv("MASAN_REPORT_CACHE", str(tmp_path / "cache"))
    with (
        RunningStack(tiny_data_dir, "tiny@1") as stack,
        httpx.Client(base_url=stack.url, timeout=30, trust_env=False) as http,
    ):
        assert eventually(lambda: http.post("/reports?n=12").status_code == 202, within_s=30)
        report = http.post("/reports?n=12").json()["links"]["self"]
        assert http.get("/reports/fid").status_code == 404
        assert eventually(lambda: http.get(report).json()["progress"]["stage"] != "", within_s=60)

        os.kill(stack.pid_of("reports"), signal.SIGKILL)
        assert eventually(lambda: http.get(report).json()["status"] in {"succeeded", "failed"}, within_s=170)

        body = http.get(report).json()
        assert (body["status"], body["attempt"]) == ("succeeded", 2), body
        figures = http.get(body["links"]["fid"]).json()["classes"]
        assert {slug: of_class["n_fake"] for slug, of_class in figures.items()} == dict.fromkeys(
            ("benign", "early_pre_b", "pre_b", "pro_b"), 12
        )
        assert 'masan_class_kid{class="pro_b"' in http.get("/metrics").text
        started = time.monotonic()

    assert time.monotonic() - started < 15
    assert processes_in(tiny_data_dir) == []
