from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from training.reproduce.rates import Rates
from training.reproduce.unit import DataSpec, Unit, in_order, unit_key
from training.reproduce.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Number(Unit):
    """Adds a number to what it needs."""

    kind: ClassVar[str] = "number"
    value: int
    first: "tuple[Number, ...]" = ()

    def title(self) -> str:
        return f"number {self.value}"

    def config(self) -> dict[str, Any]:
        return {"value": self.value}

    def needs(self) -> tuple[Unit, ...]:
        return self.first

    def seconds(self, rates: Rates) -> float:
        return 0 * rates.class_count + float(self.value)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        return {"sum": self.value + sum(workspace.finished(unit)["sum"] for unit in self.first)}


class Other(Number):
    """The same in another kind."""

    kind: ClassVar[str] = "other"


class Newer(Number):
    """The same with another meaning."""

    version: ClassVar[int] = 2


DATA = DataSpec(resolution=16)


def digest_of(digest: str) -> Callable[[DataSpec], str]:
    return lambda _: digest


def test_key_changes_with_all_that_a_result_depends_on() -> None:
    one, two = Number(data=DATA, value=1), Number(data=DATA, value=2)
    variants = [
        one,
        two,
        Other(data=DATA, value=1),
        Newer(data=DATA, value=1),
        replace(one, first=(two,)),
        replace(one, first=(replace(two, first=(one,)),)),
    ]

    keys = [unit_key(unit, digest_of("a")) for unit in variants] + [unit_key(one, digest_of("b"))]

    assert len(set(keys)) == len(keys)
    assert keys[0] == unit_key(Number(data=DATA, value=1), digest_of("a"))


def test_units_come_once_and_after_what_they_need() -> None:
    base = Number(data=DATA, value=1)
    middle = Number(data=DATA, value=2, first=(base,))
    top = Number(data=DATA, value=3, first=(middle, base))

    assert in_order([top, middle, base]) == [base, middle, top]


def test_bars_decide_how_images_are_read() -> None:
    assert DataSpec(resolution=16, bars="kept").label_mode == "keep"
    assert DataSpec(resolution=16, bars="cleaned").label_mode == "mask"
