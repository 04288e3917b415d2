from dataclasses import dataclass, field

import pytest

from worker.pace import Pace


@dataclass
class Told:
    """What a pace told, with a clock that the test moves."""

    now: float = 100.0
    busy: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)

    def pace(self) -> Pace:
        return Pace(
            busy=self.busy.append,
            speed=lambda images, seconds: self.speeds.append(images / seconds),
            monotonic=lambda: self.now,
        )


def test_time_with_two_chunks_counts_once() -> None:
    told = Told()
    pace = told.pace()

    with pace.chunk():
        told.now += 2
        with pace.chunk():
            told.now += 3
        told.now += 1
    told.now += 50
    with pace.chunk():
        told.now += 4

    assert sum(told.busy) == 10


def test_time_of_a_chunk_that_fails_counts() -> None:
    told = Told()
    with pytest.raises(KeyError), told.pace().chunk():
        told.now += 2
        raise KeyError

    assert sum(told.busy) == 2


def test_speed_is_that_of_all_images_since_the_last_was_told() -> None:
    told = Told()
    pace = told.pace()

    with pace.chunk():
        told.now += 1
        pace.made(2, is_telling=False)
        told.now += 4
        pace.made(48, is_telling=True)
        told.now += 2
        pace.made(40, is_telling=True)

    assert told.speeds == [10, 20]


def test_idle_time_does_not_slow_the_speed() -> None:
    told = Told()
    pace = told.pace()
    with pace.chunk():
        told.now += 1
        pace.made(10, is_telling=True)
    told.now += 1_000

    with pace.chunk():
        told.now += 2
        pace.made(40, is_telling=True)

    assert told.speeds == [10, 20]
