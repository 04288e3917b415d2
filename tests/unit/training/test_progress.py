import time

import pytest

from training.loop import Tick
from training.progress import TrainingProgress


def tick(seen: int, rate: float = 20.0) -> Tick:
    return Tick(seen, rate, {"loss_D": 1.25, "loss_G": -0.5, "r1": 0.1})


def test_end_is_told_in_images_and_time() -> None:
    progress = TrainingProgress("tiny", total=12_000, seen=0)

    assert progress.describe(tick(6_000)) == "6,000 of 12,000 images, 20.0/s, 12,000 in 5:00"
    assert progress.describe(tick(0, rate=1.0)).endswith("12,000 in 3:20:00")


def test_time_budget_ends_it_earlier() -> None:
    progress = TrainingProgress("tiny", total=12_000, seen=0, end=time.monotonic() + 60.5)

    assert progress.describe(tick(1_000)).endswith("20.0/s, 2,210 in 1:00")


def test_without_a_terminal_every_tick_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("tiny", total=100, seen=0) as progress:
        progress.update(tick(50))
        progress.say("a word")

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "50 of 100 images, 20.0/s, 100 in 0:02  loss_D 1.250  loss_G -0.500",
        "a word",
    ]


def test_other_ranks_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("tiny", total=100, seen=0, shown=False) as progress:
        progress.update(tick(50))

    assert capsys.readouterr() == ("", "")
