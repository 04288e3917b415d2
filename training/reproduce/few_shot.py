"""The few-shot curve: where synthetic images help a classifier that has few real ones, and where not."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from training.errors import ConfigInvalidError
from training.reproduce.arms import Generators
from training.reproduce.classifying import Arm
from training.reproduce.equal_time import hours_note
from training.reproduce.experiment import (
    NONE,
    Curves,
    Experiment,
    Line,
    Report,
    Section,
    cell,
    gains,
    mean_sd,
    percent,
    run_section,
)
from training.reproduce.few_shot_units import FewNetwork, FewProbe
from training.reproduce.findings import GAIN_WORDS
from training.reproduce.folds import Fold
from training.reproduce.generators import GeneratorUnit
from training.reproduce.given import Given
from training.reproduce.recipes import Images
from training.reproduce.scale import FOLDS, GENERATOR_KNOBS, PAPER, Scale
from training.reproduce.unit import Unit, in_order
from training.reproduce.verdict import Difference, Finding, claim, paired
from training.reproduce.workspace import Workspace

SHOTS: Final = (10, 20, 50, 100)
SEEDS: Final = 5
"""Draws of the real images, each with its own weights."""
SYNTHETIC_PER_CLASS: Final = 2_000
_PROBE: Final = "linear probe"
_FOLD: Final = 4
"""The fifth block, which no generator of scope `blocks` has seen."""
_EPOCHS: Final = 3
_SCORES: Final = {"accuracy": "accuracy", "macro_precision": "macro precision", "macro_f1": "macro F1"}


def few_shot_scale(scale: Scale) -> Scale:
    """Where a plan of the curve starts: five draws, 2,000 synthetic images, the small network alone."""
    return replace(
        scale,
        seeds=SEEDS,
        synthetic_per_class=SYNTHETIC_PER_CLASS,
        classifiers=("cnn",),
        epochs=min(scale.epochs, _EPOCHS),
    )


@dataclass(frozen=True, kw_only=True)
class FewShotCurve(Experiment):
    """shots: real images a class. given: generators that exist; without one the paper's four are trained."""

    name: ClassVar[str] = "fewshot"
    knobs: ClassVar[tuple[str, ...]] = (
        *GENERATOR_KNOBS,
        "seeds",
        "epochs",
        "real_per_class",
        "synthetic_per_class",
        "image_size",
        "classifiers",
    )
    full: ClassVar[Scale] = few_shot_scale(PAPER)
    images: Images = field(default_factory=Images)
    shots: tuple[int, ...] = SHOTS
    given: tuple[Given, ...] = ()

    def __post_init__(self) -> None:
        fewest = min(self.facts.images_per_class)
        for shots in self.shots:
            if shots > fewest * (FOLDS - 1) // FOLDS:
                raise ConfigInvalidError(
                    f"--shots {shots}: a class has {fewest} images, a fifth of them to test on"
                )

    def turned(self) -> tuple[str, ...]:
        return self.generators.turned(self.arms(), self.knobs)

    @property
    def generators(self) -> Generators:
        return Generators(facts=self.facts, given=self.given)

    def arms(self) -> list[Arm]:
        """Those asked for; else real ones and the generators that were given, or all four.

        A generator's images are added in two ways: among the real ones, and as half of each batch.
        """
        arms = [arm for arm in self.generators.arms() if not arm.equal_steps or arm.classical]
        names = self.chosen([arm.name for arm in arms])
        if self.given and not self.only:
            wanted = {given.name for given in self.given}
            names = [arm.name for arm in arms if arm.model is None or arm.name in wanted]
        return [way for arm in arms if arm.name in names for way in _ways(arm)]

    def units(self, scale: Scale) -> list[Unit]:
        """Generator by generator, so that its images are drawn once."""
        units: list[Unit] = []
        for arm in self.arms():
            if _has_probe(arm):
                units.append(self._probe(scale, arm))
            units += [
                self._network(scale, arm, network, shots, seed)
                for network in scale.classifiers
                for seed in range(scale.seeds)
                for shots in self.shots
            ]
        return units

    def _fold(self, scale: Scale) -> Fold:
        return Fold(mode="blocked", index=_FOLD, per_class=scale.real_per_class)

    def _train(self, scale: Scale, arm: Arm) -> GeneratorUnit | None:
        if arm.model is None:
            return None
        return self.generators.unit(arm.model, scale, self.images, self._fold(scale))

    def _network(self, scale: Scale, arm: Arm, network: str, shots: int, seed: int) -> FewNetwork:
        return FewNetwork(
            data=self.images.at(scale.resolution),
            arm=arm,
            fold=self._fold(scale),
            network=network,
            image_size=scale.image_size,
            epochs=scale.epochs,
            shots=shots,
            synthetic_per_class=scale.synthetic_per_class,
            class_count=len(self.facts.classes),
            seed=seed,
            train=self._train(scale, arm),
        )

    def _probe(self, scale: Scale, arm: Arm) -> FewProbe:
        return FewProbe(
            data=self.images.at(scale.resolution),
            arm=arm,
            fold=self._fold(scale),
            shots=self.shots,
            seeds=scale.seeds,
            synthetic_per_class=scale.synthetic_per_class,
            class_count=len(self.facts.classes),
            train=self._train(scale, arm),
        )

    def report(self, scale: Scale, workspace: Workspace) -> Report:
        trainings = [u for u in in_order(self.units(scale)) if isinstance(u, GeneratorUnit)]
        found = {name: self._found(name, scale, workspace) for name in (_PROBE, *scale.classifiers)}
        sections = [section for name, rows in found.items() for section in self._sections(name, rows)]
        if trainings:
            sections.append(run_section(workspace, trainings))
        return Report(
            title="The few-shot curve: a few real images, with and without synthetic ones",
            sections=tuple(sections),
            notes=self._notes(scale, workspace, trainings),
            figures={
                "shots": list(self.shots),
                "synthetic_per_class": scale.synthetic_per_class,
                "classifiers": {
                    name: {
                        arm.name: {
                            "label": _label(arm),
                            "shots": {str(shots): results for shots, results in rows[arm.name].items()},
                            "gain_points": {str(s): _gains(rows, arm, s) for s in self.shots},
                        }
                        for arm in self.arms()
                        if arm.name in rows
                    }
                    for name, rows in found.items()
                },
                "trainings": [{"title": u.title(), **workspace.finished(u)} for u in trainings],
            },
            curves=tuple(self._curves(name, rows) for name, rows in found.items()),
            findings=tuple(f for name, rows in found.items() for f in self._findings(name, rows, scale)),
        )

    def _found(self, name: str, scale: Scale, workspace: Workspace) -> "Rows":
        """Arm -> count of real images -> one result a draw, in the same order for every arm."""
        rows: Rows = {}
        for arm in self.arms():
            if name != _PROBE:
                rows[arm.name] = {
                    shots: [
                        {"seed": s, **workspace.finished(self._network(scale, arm, name, shots, s))}
                        for s in range(scale.seeds)
                    ]
                    for shots in self.shots
                }
            elif _has_probe(arm):
                drawn = workspace.finished(self._probe(scale, arm))["shots"]
                nothing = [{"seed": s, "accuracy": None} for s in range(scale.seeds)]
                rows[arm.name] = {s: nothing if drawn is None else drawn[str(s)] for s in self.shots}
        return rows

    def _sections(self, name: str, rows: "Rows") -> list[Section]:
        header = ("trained on", *(f"{shots} real a class" for shots in self.shots))
        arms = [arm for arm in self.arms() if arm.name in rows]
        sections = [
            Section(
                title=f"{name}: {text}, %",
                header=header,
                rows=tuple(
                    (_label(arm), *(cell(percent(rows[arm.name][shots], score)) for shots in self.shots))
                    for arm in arms
                ),
            )
            for score, text in _SCORES.items()
        ]
        gained = tuple(
            (_label(arm), *(_gain_text(_difference(rows, arm, shots)) for shots in self.shots))
            for arm in arms
            if _has_gain(rows, arm)
        )
        if gained:
            sections.append(
                Section(
                    title=f"{name}: gain in accuracy over real images alone, points",
                    header=header,
                    rows=gained,
                    note="Paired by draw; in brackets the 95 % interval of the mean; `?`: it holds zero.",
                )
            )
        return sections

    def _curves(self, name: str, rows: "Rows") -> Curves:
        lines = []
        for arm in self.arms():
            if arm.name not in rows:
                continue
            values: list[tuple[float, float | None] | None] = []
            for shots in self.shots:
                known = [v for v in percent(rows[arm.name][shots], "accuracy") if v is not None]
                values.append(mean_sd(known) if known else None)
            lines.append(Line(label=_label(arm), values=tuple(values)))
        return Curves(
            title=f"Accuracy on the unseen block, {name}",
            axis="percent, mean and standard deviation over draws",
            along="real images a class",
            places=tuple(map(str, self.shots)),
            lines=tuple(lines),
        )

    def _findings(self, name: str, rows: "Rows", scale: Scale) -> list[Finding]:
        findings = []
        for arm in self.arms():
            if not _has_gain(rows, arm):
                continue
            for shots in self.shots:
                difference = _difference(rows, arm, shots)
                if difference is None:
                    continue
                whose = _label(arm).removeprefix("real + ")
                made = f"{scale.synthetic_per_class:,} synthetic images a class of {whose}"
                findings.append(
                    Finding(
                        kind=claim(difference, None),
                        text=f"{name}, {shots} real a class: {made if arm.model else whose}:"
                        f" {difference.text(unit=' points')}, {GAIN_WORDS[difference.sign]}.",
                    )
                )
        return findings

    def _notes(
        self, scale: Scale, workspace: Workspace, trainings: Sequence[GeneratorUnit]
    ) -> tuple[str, ...]:
        seen = (
            "No generator has seen the fifth series block, which alone is tested."
            if self.images.scope == "blocks"
            else "Generators have seen the test images: gains are flattered."
        )
        notes = [
            f"Real images drawn {scale.seeds} times from blocks 1 to 4, fewer among more, the same for every"
            f" row; {scale.synthetic_per_class:,} synthetic images a class added. {seen}",
            "Networks are trained from scratch, all rows of a column for equally many steps; the linear probe"
            " stands on EfficientNet-Lite2 features, which no discriminator knows.",
            "Spread and intervals are over draws and weights, on one block of one laboratory's slides.",
            *hours_note(workspace, trainings),
        ]
        return tuple(notes)


Rows = dict[str, dict[int, list[dict[str, Any]]]]
"""Results by row and count of real images."""


def _ways(arm: Arm) -> tuple[Arm, ...]:
    """The row, and for a generator's also that of half-real batches."""
    if arm.model is None:
        return (arm,)
    half = replace(arm, name=f"{arm.name}-half", label=f"{arm.label}, half of each batch", half_real=True)
    return (arm, half)


def _has_probe(arm: Arm) -> bool:
    """A probe's features are frozen, and it is fitted to all images at once."""
    return not arm.classical and not arm.half_real


def _label(arm: Arm) -> str:
    return "classical augmentation" if arm.classical else arm.label


def _has_gain(rows: Rows, arm: Arm) -> bool:
    return arm.name in rows and arm.name != "real" and "real" in rows


def _gains(rows: Rows, arm: Arm, shots: int) -> list[float]:
    """Points of accuracy over real images alone, draw by draw; empty where a generator is missing."""
    if not _has_gain(rows, arm):
        return []
    return [gain for gain in gains(rows[arm.name][shots], rows["real"][shots]) if gain is not None]


def _difference(rows: Rows, arm: Arm, shots: int) -> Difference | None:
    found = _gains(rows, arm, shots)
    return paired(found) if found else None


def _gain_text(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    return difference.text() + ("" if difference.sign else " ?")
