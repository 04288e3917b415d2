"""What is printed beside the images."""

import io
from typing import Any

import pytest
from rich.console import Console

from masan.client import Client, Job
from masan.generate import Timing, print_quality
from tests.unit.masan.test_client import JOB, ScriptedServer, answer

FIGURES = {
    "n_real": 480,
    "n_fake": 500,
    "frechet_distance": 41.25,
    "floor": 12.5,
    "kid": 0.0312,
    "kid_sd": 0.001,
    "kid_floor": 0.0004,
    "fid": None,
}


def report(extractor: str, fid: float | None) -> dict[str, Any]:
    figures = {**FIGURES, "fid": fid}
    return {"extractor": extractor, "classes": {"pro_b": figures}, "judges": []}


def printed_quality(status: int, body: dict[str, Any]) -> str:
    output = io.StringIO()
    with ScriptedServer(answer(status, body)) as server, Client(server.url) as client:
        print_quality(client, "pro_b", "b-all@1", Console(file=output, width=140))
    assert server.asked[0][1] == "/reports/fid?class=pro_b&model=b-all%401"
    return output.getvalue()


def test_figures_stand_beside_their_floor_and_name_their_extractor() -> None:
    said = printed_quality(200, report("efficientnet-lite0", fid=None))

    for text in (
        "efficientnet-lite0",
        "Frechet distance",
        "41.25",
        "12.50",
        "0.0312 ± 0.0010",
        "0.0004",
        "480 / 500",
    ):
        assert text in said
    assert "FID" not in said


def test_only_inception_s_distance_is_called_fid() -> None:
    said = printed_quality(200, report("inception-v3", fid=41.25))

    assert "FID" in said
    assert "Frechet distance" not in said


def test_every_judge_is_shown() -> None:
    body = report("efficientnet-lite0", fid=None)
    body["judges"] = [report("efficientnet-lite2", fid=None)]

    said = printed_quality(200, body)

    assert "efficientnet-lite0" in said
    assert "efficientnet-lite2" in said


def test_a_checkpoint_without_report_is_said_to_have_none() -> None:
    said = printed_quality(404, {"detail": "b-all@1 was published without a quality report"})

    assert "No quality figures: b-all@1 was published without a quality report" in said


@pytest.mark.parametrize(("done", "status", "noted"), [(0, "queued", False), (4, "running", True)])
def test_first_image_is_when_progress_is_first_seen(done: int, status: str, noted: bool) -> None:
    timing = Timing(asked=0.0)

    timing.note(Job.from_body({**JOB, "status": status, "progress": {"done": done}}))

    assert (timing.first_image is not None) == noted
    assert timing.last_image is None


def test_speed_is_from_the_request_to_the_last_image() -> None:
    timing = Timing(asked=100.0, first_image=102.0, last_image=110.0)

    assert timing.speed(500) == 50.0
    assert timing.describe(90.0, "the start") == "first image 12.0 s, last image 20.0 s after the start"
