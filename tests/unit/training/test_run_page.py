import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_training import tiny_config, tiny_dataset
from training.run_dir import RunDir
from training.run_page import GRIDS, chart, write_run_page


class Page(HTMLParser):
    """Counts elements, and collects whatever a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [str(value) for name, value in attrs if name in {"src", "href"}]


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    run = RunDir.create(tmp_path / "<run>", tiny_config(), tiny_dataset(), torch.device("cpu"))
    run.note_start("started", torch.device("cpu"), images_seen=0, hours=0.0)
    for seen in range(8, 81, 8):
        run.log(images_seen=seen, images_per_second=20.0, loss_D=3.0 - seen / 100, loss_G=1.0, r1=0.1)
        run.save_samples(np.full((4, 8, 8, 3), seen, np.uint8), seen, 2)
    run.log(images_seen=40, score=0.5, **{"kid/mean": 0.5, "kid/class_0": 0.4})
    run.log(images_seen=80, score=0.6, **{"kid/mean": 0.6, "kid/class_0": 0.5})
    return run


def test_page_shows_curves_grids_and_history_and_fetches_nothing(run_dir: RunDir) -> None:
    text = write_run_page(run_dir).read_text()

    page = Page(text)
    assert page.counts["svg"] == 4  # losses, KID, other terms, rate
    assert page.counts["img"] == GRIDS
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "Best mean KID 0.5000, after 40 images" in text
    assert "&lt;run&gt;" in text
    assert "<run>" not in text
    assert "80 images" in text
    assert re.findall(r"<span[^>]*>([^<]+)</span>", text) == ["loss_D", "loss_G", "class_0", "mean"]


def test_page_of_a_run_that_has_nothing_yet_can_be_written(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", tiny_config(), tiny_dataset(), torch.device("cpu"))

    assert "0 images seen" in write_run_page(run).read_text()


def test_chart_draws_points_to_scale_and_leaves_gaps() -> None:
    figure = chart("Losses", {"loss": [(0.0, 0.0), (50.0, 5.0), (75.0, math.nan), (100.0, 10.0)]})

    (path,) = re.findall(r'<path d="([^"]+)" fill="none"', figure)
    moves = re.findall(r"([ML])([\d.]+) ([\d.]+)", path)
    assert [command for command, _, _ in moves] == ["M", "L", "M"]
    xs, ys = zip(*[(float(x), float(y)) for _, x, y in moves], strict=True)
    assert xs[1] - xs[0] == pytest.approx((xs[2] - xs[0]) / 2, abs=0.2)
    assert ys[0] > ys[1] > ys[2]


def test_chart_of_no_numbers_is_left_out() -> None:
    assert chart("Losses", {"loss": [(0.0, math.nan)]}) == ""
