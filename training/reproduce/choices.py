"""From the options of `masan reproduce` to an experiment and the scale it starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from training.errors import ConfigInvalidError
from training.reproduce.classifiers import CLASSIFIERS
from training.reproduce.equal_time import with_equal_time
from training.reproduce.experiment import Experiment, Facts
from training.reproduce.few_shot import SHOTS, FewShotCurve, few_shot_scale
from training.reproduce.figure3 import Figure3
from training.reproduce.given import Given
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images, Scope
from training.reproduce.scale import Scale, with_settings
from training.reproduce.table1 import Table1
from training.reproduce.table2 import Table2
from training.reproduce.table3 import Table3
from training.reproduce.unit import Bars

PROBE_SHOTS: Final = (10, 20)
"""Of Table III's proxies."""


class What(StrEnum):
    """What can be remade; `results` makes a page of what was."""

    TABLE1 = "table1"
    TABLE2 = "table2"
    TABLE3 = "table3"
    FIGURE3 = "figure3"
    FEWSHOT = "fewshot"
    RESULTS = "results"


class ScaleName(StrEnum):
    """Where a plan starts from."""

    LAPTOP = "laptop"
    PAPER = "paper"


class BarsShown(StrEnum):
    """Whether scale bars are painted over."""

    CLEANED = "cleaned"
    KEPT = "kept"
    BOTH = "both"


class ScopeName(StrEnum):
    """What generators are trained on."""

    FOLD = "fold"
    BLOCKS = "blocks"
    ALL = "all"


_SCOPES: Final[dict[ScopeName, Scope]] = {
    ScopeName.FOLD: "fold",
    ScopeName.BLOCKS: "blocks",
    ScopeName.ALL: "all",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for, as the command line has it; None or empty where nothing was said."""

    what: What
    only: tuple[str, ...] = ()
    bars: BarsShown = BarsShown.CLEANED
    keep_duplicates: bool = False
    scope: ScopeName | None = None
    shots: tuple[int, ...] = ()
    inception: bool = False
    generators: tuple[str, ...] = ()
    store: str | None = None
    seeds: int | None = None
    classifiers: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    equal_time: bool = False

    def experiment(self, facts: Facts) -> Experiment:
        """Raises ConfigInvalidError for what this table cannot do."""
        what, variants = self.what, self.variants()
        given = self._given(facts)
        if what is What.TABLE3:
            return Table3(
                facts=facts,
                only=self.only,
                variants=tuple(variants),
                shots=self.shots or PROBE_SHOTS,
                given=given,
            )
        if len(variants) > 1:
            raise ConfigInvalidError(f"--bars 'both' is for table3; {what} takes cleaned or kept")
        if variants[0].scope == "fold":
            raise ConfigInvalidError(f"--gan-train-scope 'fold' is for table3; {what} takes blocks or all")
        if what is What.FEWSHOT:
            return FewShotCurve(
                facts=facts, only=self.only, images=variants[0], shots=self.shots or SHOTS, given=given
            )
        if what is What.FIGURE3:
            return Figure3(facts=facts, only=self.only, images=variants[0])
        table = Table1 if what is What.TABLE1 else Table2
        return table(facts=facts, only=self.only, images=variants[0], inception=self.inception)

    def start(self, scale: Scale) -> Scale:
        """The scale to start from, as the command line changes it. Raises ConfigInvalidError."""
        unknown = [name for name in self.classifiers if name not in CLASSIFIERS]
        if unknown:
            raise ConfigInvalidError(f"--classifier {unknown[0]!r} is not one of {', '.join(CLASSIFIERS)}")
        if self.what is What.FEWSHOT:
            scale = few_shot_scale(scale)
        changes: dict[str, Any] = {} if self.seeds is None else {"seeds": self.seeds}
        if self.classifiers:
            changes["classifiers"] = tuple(name for name in CLASSIFIERS if name in self.classifiers)
        return with_settings(replace(scale, **changes), self.settings)

    def adjustment(self, rates: Rates, facts: Facts) -> Callable[[Scale], Scale]:
        """What `--equal-time` does to a scale. Raises ConfigInvalidError without a diffusion model."""
        if not self.equal_time:
            return lambda scale: scale
        if self.what not in (What.TABLE3, What.FEWSHOT, What.FIGURE3):
            raise ConfigInvalidError(
                f"--equal-time is about the diffusion model, which {self.what} does not have"
            )
        return lambda scale: with_equal_time(scale, rates, self.variants()[0], facts.images)

    def variants(self) -> list[Images]:
        """Every way of reading the images that was asked for."""
        both: Sequence[Bars] = ("cleaned", "kept")
        shown = both if self.bars is BarsShown.BOTH else both[self.bars is BarsShown.KEPT :][:1]
        return [
            Images(bars=bars, deduplicate=not self.keep_duplicates, scope=self._scope()) for bars in shown
        ]

    def _scope(self) -> Scope:
        if self.scope is not None:
            return _SCOPES[self.scope]
        return "fold" if self.what is What.TABLE3 and not self.generators else "blocks"

    def _given(self, facts: Facts) -> tuple[Given, ...]:
        if not self.generators:
            return ()
        if self.what not in (What.TABLE3, What.FEWSHOT):
            raise ConfigInvalidError(f"--generator is for table3 and fewshot, not for {self.what}")
        given = tuple(Given.of(text, self.store, facts.classes) for text in self.generators)
        names = [each.name for each in given]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ConfigInvalidError(f"--generator {twice[0]} is given twice")
        return given
