"""Table III: what synthetic images add to a classifier, with the comparisons that make it honest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final

from model_store.quality.series import HELD_OUT_BLOCK
from training.reproduce.arms import Generators
from training.reproduce.classifying import Arm, Classify, Proxies
from training.reproduce.equal_time import hours_note
from training.reproduce.experiment import (
    NONE,
    Dot,
    Experiment,
    Plot,
    Report,
    Section,
    cell,
    gains,
    mean_sd,
    optional,
    percent,
    run_section,
)
from training.reproduce.findings import accuracy_finding
from training.reproduce.folds import FOLD_ORDER, Fold, FoldMode
from training.reproduce.generators import GeneratorUnit
from training.reproduce.given import Given
from training.reproduce.published import published
from training.reproduce.recipes import Images
from training.reproduce.scale import GENERATOR_KNOBS, Scale
from training.reproduce.unit import Unit, in_order
from training.reproduce.verdict import Finding
from training.reproduce.workspace import Workspace

_MODES: Final[dict[str, tuple[FoldMode, ...]]] = {
    "fold": ("blocked", "random"),
    "blocks": ("blocked",),
    "all": ("blocked", "random"),
}
_MODE_NAMES: Final[dict[str, str]] = {"blocked": "series-blocked folds", "random": "random folds"}
_BASELINE: Final = "real-equal-steps"
_PAIRS: Final = [("masan", "cellgan"), ("masan", "ldm"), ("ours", "masan")]
"""Generators that are compared with one another."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Everything that is compared with one another: one way of reading images, of folding, one classifier."""

    images: Images
    mode: FoldMode
    network: str

    def title(self) -> str:
        return f"{self.network}, {_MODE_NAMES[self.mode]}, scale bars {self.images.bars}"


@dataclass(frozen=True, kw_only=True)
class Table3(Experiment):
    """variants: ways of reading the images, each run whole. shots: real images a class for the proxies.

    given: generators that are not trained. Of a variant whose scope is `fold` they are tested on the fifth
        block alone, the only images that they have not seen.
    """

    name: ClassVar[str] = "table3"
    knobs: ClassVar[tuple[str, ...]] = (
        *GENERATOR_KNOBS,
        "seeds",
        "folds",
        "epochs",
        "real_per_class",
        "synthetic_per_class",
        "image_size",
        "classifiers",
    )
    variants: tuple[Images, ...] = field(default=(Images(scope="fold"),))
    shots: tuple[int, ...] = (10, 20)
    given: tuple[Given, ...] = ()

    def arms(self) -> list[Arm]:
        """Those asked for."""
        arms = self.generators.arms()
        names = self.chosen([arm.name for arm in arms])
        return [arm for arm in arms if arm.name in names]

    def turned(self) -> tuple[str, ...]:
        return self.generators.turned(self.arms(), self.knobs)

    @property
    def generators(self) -> Generators:
        return Generators(facts=self.facts, given=self.given)

    def units(self, scale: Scale) -> list[Unit]:
        """Fold by fold and generator by generator, so that drawn images serve all classifiers."""
        return [*self._classifications(scale), *self._all_proxies(scale)]

    def _classifications(self, scale: Scale) -> Iterator[Classify]:
        for images, mode, fold in self._folds(scale):
            for arm in self._arms_of(images, fold):
                for network in scale.classifiers:
                    for seed in range(scale.seeds):
                        yield self._classify(
                            scale, Group(images=images, mode=mode, network=network), fold, arm, seed
                        )

    def _folds(self, scale: Scale) -> Iterator[tuple[Images, FoldMode, Fold]]:
        for images in self.variants:
            # One generator for the fifth block knows nothing of that block alone.
            indices = FOLD_ORDER[:1] if images.scope == "blocks" else FOLD_ORDER[: scale.folds]
            for mode in _MODES[images.scope]:
                for index in indices:
                    yield images, mode, Fold(mode=mode, index=index, per_class=scale.real_per_class)

    def _arms_of(self, images: Images, fold: Fold) -> list[Arm]:
        """Those that can be tested on that fold."""
        if images.scope != "fold" or (fold.mode == "blocked" and fold.index == HELD_OUT_BLOCK):
            return self.arms()
        given = {each.name for each in self.given}
        return [arm for arm in self.arms() if arm.model not in given]

    def _classify(self, scale: Scale, group: Group, fold: Fold, arm: Arm, seed: int) -> Classify:
        train = None
        if arm.model is not None:
            train = self.generators.unit(arm.model, scale, group.images, fold)
        return Classify(
            data=group.images.at(scale.resolution),
            arm=arm,
            fold=fold,
            network=group.network,
            image_size=scale.image_size,
            epochs=scale.epochs,
            synthetic_per_class=scale.synthetic_per_class,
            class_count=len(self.facts.classes),
            seed=10 * seed + fold.index,
            train=train,
        )

    def _all_proxies(self, scale: Scale) -> list[Proxies]:
        """Of every generator of the first fold."""
        first: dict[Images, Fold] = {}
        for images, _, fold in self._folds(scale):
            first.setdefault(images, fold)
        return [
            Proxies(
                data=images.at(scale.resolution),
                train=self.generators.unit(arm.model, scale, images, fold),
                fold=fold,
                n_synthetic=scale.synthetic_per_class,
                shots=self.shots,
                class_count=len(self.facts.classes),
            )
            for images, fold in first.items()
            for arm in self.arms()
            if arm.model is not None
        ]

    def report(self, scale: Scale, workspace: Workspace) -> Report:
        found = _Found(self, scale, workspace)
        groups = list(dict.fromkeys(found.groups))
        trainings = [u for u in in_order(self.units(scale)) if isinstance(u, GeneratorUnit)]
        sections = [found.section(group) for group in groups]
        sections += [found.proxies(), run_section(workspace, trainings)]
        return Report(
            title="Table III: classifiers with and without synthetic images",
            sections=tuple(sections),
            notes=(*self._notes(scale), *hours_note(workspace, trainings), *found.untaught_note()),
            figures={
                "groups": [found.figures(group) for group in groups],
                "proxies": [{"title": unit.title(), **result} for unit, result in found.probed],
                "trainings": [{"title": u.title(), **workspace.finished(u)} for u in trainings],
            },
            plots=tuple(found.plot(group) for group in groups),
            findings=tuple(finding for group in groups for finding in found.findings(group)),
        )

    def comparable(self, group: Group, scale: Scale) -> bool:
        """Whether the paper's accuracies were measured in this way, as far as it tells."""
        same = group.images.are_the_papers() and group.mode == "random" and group.network != "cnn"
        return same and scale.recipe_networks

    def _notes(self, scale: Scale) -> tuple[str, ...]:
        scopes = {images.scope for images in self.variants}
        notes = [
            "Gain: over real images alone in equally many steps, paired by fold and seed. More images mean"
            " more steps; a gain over plain `real` alone says nothing.",
            "Mean ± standard deviation over folds and seeds; it does not tell how other patients would do.",
            "Series-blocked folds keep neighbouring fields together and leave out five fields next to a cut;"
            " they are not patient-level, for the files name no patients.",
            "A class is mostly recognised by its staining series: accuracies tell little about clinical use.",
        ]
        if "fold" in scopes:
            notes.append("Every generator was trained without the test images of its fold.")
        if "blocks" in scopes:
            notes.append("One generator a model, trained on blocks 1 to 4; the fifth block alone is tested.")
        if self.given:
            notes.append(
                "A row that names a run or a version is a generator that was given: its size, recipe and"
                " number of images are its own, see the trainings below."
            )
            if "fold" in scopes:
                notes.append("Such a row is tested on the fifth block alone, which its generator never saw.")
        if "all" in scopes:
            notes.append(
                "Generators have seen the test images, as the paper's probably had: gains are flattered."
            )
        groups = [
            Group(images=i, mode=m, network=n) for i, m, _ in self._folds(scale) for n in scale.classifiers
        ]
        if not any(self.comparable(group, scale) for group in groups):
            notes.append(
                "The paper's column: random folds, scale bars kept, generators that had probably seen the"
                " test images, other training lengths. It is not comparable with ours in number."
            )
        return tuple(notes)


@dataclass(frozen=True)
class _Found:
    """Results by group and arm."""

    table: Table3
    scale: Scale
    workspace: Workspace

    @cached_property
    def groups(self) -> dict[Group, dict[str, list[dict[str, Any]]]]:
        """Group -> arm -> one result per fold and seed, in the same order for every arm.

        Without figures where the arm cannot be tested; arms that cannot be tested at all are left out.
        """
        groups: dict[Group, dict[str, list[dict[str, Any]]]] = {}
        for images, mode, fold in self.table._folds(self.scale):
            testable = self.table._arms_of(images, fold)
            for network in self.scale.classifiers:
                group = Group(images=images, mode=mode, network=network)
                for arm in self.table.arms():
                    results = groups.setdefault(group, {}).setdefault(arm.name, [])
                    for seed in range(self.scale.seeds):
                        found: dict[str, Any] = {}
                        if arm in testable:
                            found = self.workspace.finished(
                                self.table._classify(self.scale, group, fold, arm, seed)
                            )
                        results.append({"fold": fold.index, "seed": seed, **found})
        return {
            group: {name: results for name, results in arms.items() if _tested(results)}
            for group, arms in groups.items()
        }

    @cached_property
    def probed(self) -> list[tuple[Proxies, dict[str, Any]]]:
        """Every generator's proxies and what came out."""
        return [(unit, self.workspace.finished(unit)) for unit in self.table._all_proxies(self.scale)]

    def arms(self, group: Group) -> list[Arm]:
        return [arm for arm in self.table.arms() if arm.name in self.groups[group]]

    def section(self, group: Group) -> Section:
        rows = []
        for arm in self.arms(group):
            results = self.groups[group][arm.name]
            paper = published("table3", group.network, arm.name)
            rows.append(
                (
                    arm.label,
                    cell(percent(results, "accuracy")),
                    cell(percent(results, "macro_precision")),
                    cell(percent(results, "macro_f1")),
                    cell(self._gain(group, arm), "+.1f"),
                    f"{max((r.get('steps', 0) for r in results), default=0):,}",
                    str(_tested(results)),
                    optional(paper.get("accuracy")),
                )
            )
        header = ("trained on", "accuracy", "macro precision", "macro F1", "gain", "steps", "n")
        return Section(title=group.title(), header=(*header, "paper: accuracy"), rows=tuple(rows))

    def figures(self, group: Group) -> dict[str, Any]:
        return {
            "bars": group.images.bars,
            "deduplicated": group.images.deduplicate,
            "gan_train_scope": group.images.scope,
            "folds": group.mode,
            "network": group.network,
            "paper_is_comparable": self.table.comparable(group, self.scale),
            "arms": {
                arm.name: {
                    "label": arm.label,
                    "paper": dict(published("table3", group.network, arm.name)) or None,
                    "gain_percent": self._gain(group, arm),
                    "results": self.groups[group][arm.name],
                }
                for arm in self.arms(group)
            },
        }

    def plot(self, group: Group) -> Plot:
        dots = []
        for arm in self.arms(group):
            values = [v for v in percent(self.groups[group][arm.name], "accuracy") if v is not None]
            if values:
                mean, sd = mean_sd(values)
                dots.append(Dot(label=arm.label, value=mean, sd=sd))
        return Plot(title=f"Accuracy, {group.title()}", axis="percent, higher is better", dots=tuple(dots))

    def findings(self, group: Group) -> list[Finding]:
        """Of each row against real images in equal steps, and of the paper's pairs of generators."""
        arms = {arm.name: arm for arm in self.arms(group)}
        findings = []
        for name, other in [(name, _BASELINE) for name in arms if name not in ("real", _BASELINE)] + _PAIRS:
            if name not in arms or other not in arms:
                continue
            known = [gain for gain in self._differences(group, name, other) if gain is not None]
            if known:
                labels = arms[name].label, arms[other].label
                findings.append(
                    accuracy_finding(group.title(), labels, known, _paper_gain(group.network, name, other))
                )
        return findings

    def proxies(self) -> Section:
        rows = []
        for unit, found in self.probed:
            utility = found["utility"] or {}
            few = {one["n_per_class"]: one for one in found["few_shot"]}
            rows.append(
                (
                    unit.train.label,
                    unit.data.bars,
                    _share(utility.get("synthetic_accuracy")),
                    _share(utility.get("real_accuracy")),
                    *(_gain_of(few.get(shots)) for shots in self.table.shots),
                )
            )
        return Section(
            title="Proxies: a linear probe on EfficientNet-Lite2 features, first fold",
            header=(
                "generator",
                "bars",
                "trained on synthetic, %",
                "trained on real, %",
                *(f"gain at {shots} real a class, points" for shots in self.table.shots),
            ),
            rows=tuple(rows),
            note="Few-shot gains over draws of the real images; a spread above the gain tells nothing.",
        )

    def untaught_note(self) -> tuple[str, ...]:
        """Which generators' images teach a probe less than half of what there is above guessing, if any."""
        chance = 1 / len(self.table.facts.classes)
        known = [
            (unit.train.label, result["utility"]["synthetic_accuracy"])
            for unit, result in self.probed
            if result["utility"] is not None
        ]
        untaught = [(label, accuracy) for label, accuracy in known if accuracy < (1 + chance) / 2]
        if not untaught:
            return ()
        labels = dict.fromkeys(label for label, _ in untaught)  # once, however the images were read
        low, high = (100 * end(accuracy for _, accuracy in untaught) for end in (min, max))
        return (
            f"A probe trained on images of {', '.join(labels)} alone names {low:.1f} to {high:.1f} % of the"
            f" real ones, where guessing names {100 * chance:.1f} %: at this length they have not learned the"
            " classes. What adding such images does says nothing about the same models trained longer.",
        )

    def _gain(self, group: Group, arm: Arm) -> list[float | None]:
        """Accuracy in points over real images in equal steps, by fold and seed; empty without that arm."""
        if _BASELINE not in self.groups[group] or arm.name == _BASELINE:
            return []
        return self._differences(group, arm.name, _BASELINE)

    def _differences(self, group: Group, name: str, other: str) -> list[float | None]:
        return gains(self.groups[group][name], self.groups[group][other])


def _tested(results: Sequence[Mapping[str, Any]]) -> int:
    """How many of the results are of a fold that the arm can be tested on."""
    return sum("accuracy" in result for result in results)


def _paper_gain(network: str, name: str, other: str) -> float | None:
    """The paper's difference in points; its real images were not trained on for equal steps."""
    figures = [
        published("table3", network, "real" if each == _BASELINE else each).get("accuracy")
        for each in (name, other)
    ]
    return None if figures[0] is None or figures[1] is None else figures[0] - figures[1]


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _gain_of(few: dict[str, Any] | None) -> str:
    return NONE if few is None else f"{100 * few['gain']:+.1f} ± {100 * few['gain_sd']:.1f}"
