"""The dashboards as files: what is where, and that fleet-wide figures are taken from one process."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from prometheus_client import CollectorRegistry

from service.metrics.process import HttpMetrics
from tests.expressions import DEPLOY, dashboards, expressions, selections, targets
from worker.metrics import WorkerMetrics

PANELS = {
    "MASAN": [
        "Images made",
        "Jobs",
        "Queue",
        "How long jobs wait",
        "Workers and GPUs",
        "HTTP",
        "Quality by class",
        "Losses and space",
        "Inside a worker",
    ],
    "MASAN quality": [
        "Frechet distance",
        "Kernel distance (KID)",
        "Drift of what is served",
        "Recall and coverage",
        "Memorised",
        "Refused by the gate",
        "Label agreement",
        "FID",
        "Age of the figures",
    ],
}
ADDS_UP = {"sum", "avg", "count", "stddev"}
TAKES_ONE = {"max", "min"}


def counted_by_one_process() -> set[str]:
    """Names of the samples of what a process counts itself, the parts of histograms included."""
    http = CollectorRegistry()
    HttpMetrics(http)
    families = [*http.collect(), *WorkerMetrics(torch.device("cpu")).registry.collect()]
    endings = ("", "_total", "_bucket", "_count", "_sum")
    gpu = {f"masan_gpu_memory_{name}_bytes" for name in ("allocated", "reserved", "total")}
    return {family.name + ending for family in families for ending in endings} | gpu


@pytest.mark.parametrize("board", dashboards(), ids=lambda board: board["title"])
def test_board_has_its_panels(board: dict[str, Any]) -> None:
    panels = board["panels"]

    assert [panel["title"] for panel in panels] == PANELS[board["title"]]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["targets"] and panel["description"] for panel in panels)


@pytest.mark.parametrize("board", dashboards(), ids=lambda board: board["title"])
def test_no_panel_lies_over_another(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("board", dashboards(), ids=lambda board: board["title"])
def test_promotions_are_marked(board: dict[str, Any]) -> None:
    [note] = board["annotations"]["list"]

    assert "masan_model_info" in note["expr"] and note["enable"]


def test_boards_ask_the_datasource_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uids = {source["uid"] for source in provisioned["datasources"]}

    asked = {
        place["datasource"]["uid"]
        for board in dashboards()
        for panel in board["panels"]
        for place in (panel, *panel["targets"])
    }

    assert asked == uids


def test_compose_mounts_every_board_where_grafana_looks() -> None:
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/masan.yml").read_text())
    compose = yaml.safe_load((Path(DEPLOY).parent / "docker-compose.yml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])

    folder = provider["providers"][0]["options"]["path"]
    assert mounts["./deploy/grafana/dashboards"] == folder
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert len({board["uid"] for board in dashboards()}) == len(PANELS)


@pytest.mark.parametrize("expr", expressions())
def test_what_every_service_process_tells_is_taken_once_before_it_is_added_up(expr: str) -> None:
    own = counted_by_one_process()

    for selection in selections(expr):
        steps = [call for call in selection.around if call in ADDS_UP | TAKES_ONE | {"absent"}]
        if selection.metric not in own:
            assert steps and steps[0] not in ADDS_UP, f"{selection.metric}: {selection.around}"


def test_lines_of_one_panel_have_different_names() -> None:
    names = [(target.board, target.panel, target.legend) for target in targets()]

    assert len(names) == len(set(names))
