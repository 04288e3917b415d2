from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from training.config import TrainConfig
from training.diffusion.config import ldm_cpu
from training.reproduce.classifying import ARMS, Classify
from training.reproduce.folds import Fold
from training.reproduce.generators import TrainGenerator
from training.reproduce.judging import References
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
KEYS = [
    "f13a379e9de87d77e4f844d7023b8486f6f88bfa29b246067b0f7ebd1d6a71c0",
    "4d44e8a4d272a84738c98b480f01d0f0d4b4c7f37977c1035999fff03314e907",
    "626cf466243858bc7c1687eeca4b15ad70521fa3703bfb7c1b89c03f36ad9e48",
    "5b746c6ab2f1bd7e6d741144aaab759b124c33ecdf8ee0eba9946d9abe4ce2cd",
]


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


def test_finished_work_keeps_its_keys() -> None:
    """Another key makes everybody's results strangers: hours of training. Only a `version` may do so.

    A field that a recipe gains later must not count where it has its default.
    """
    gan = TrainGenerator(data=DATA, label="a", recipe=TrainConfig(recipe="a"))
    diffusion = TrainGenerator(data=DATA, label="a", recipe=ldm_cpu())
    fold = Fold(mode="blocked", index=4, per_class=10)
    classify = Classify(
        data=DATA,
        arm=ARMS[1],
        fold=fold,
        network="cnn",
        image_size=64,
        epochs=2,
        synthetic_per_class=8,
        class_count=2,
        seed=4,
    )
    references = References(data=DATA, n_real=6, images=12)

    units = (classify, references, gan, diffusion)
    assert [unit_key(unit, digest_of("a")) for unit in units] == KEYS
    assert unit_key(replace(gan, fold=fold), digest_of("a")) not in KEYS


def test_units_come_once_and_after_what_they_need() -> None:
    base = Number(data=DATA, value=1)
    middle = Number(data=DATA, value=2, first=(base,))
    top = Number(data=DATA, value=3, first=(middle, base))

    assert in_order([top, middle, base]) == [base, middle, top]


def test_bars_decide_how_images_are_read() -> None:
    assert DataSpec(resolution=16, bars="kept").label_mode == "keep"
    assert DataSpec(resolution=16, bars="cleaned").label_mode == "mask"
