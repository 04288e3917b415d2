"""Whose images the rows of a classifier table add: generators that are given, or trained for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from training.reproduce.classifying import ARMS, Arm
from training.reproduce.experiment import Facts
from training.reproduce.folds import Fold
from training.reproduce.generators import GeneratorUnit, TrainGenerator
from training.reproduce.given import Given
from training.reproduce.recipes import CELLGAN, LDM, MASAN, OURS, Images, Model, hold_out
from training.reproduce.scale import GENERATOR_KNOBS, Scale

MODELS: Final[dict[str, Model]] = {model.name: model for model in (CELLGAN, LDM, MASAN, OURS)}


@dataclass(frozen=True, kw_only=True)
class Generators:
    """Generators by the name of their row.

    given: those that exist; of the paper's four the others are trained.
    """

    facts: Facts
    given: tuple[Given, ...] = ()

    def arms(self) -> list[Arm]:
        """All rows there could be: real images, the paper's generators, then given ones of other names."""
        by_name = {given.name: given for given in self.given}
        known = [
            replace(arm, label=f"{arm.label}: {by_name[arm.name].shown}") if arm.name in by_name else arm
            for arm in ARMS
        ]
        names = {arm.name for arm in ARMS}
        others = [
            Arm(name=name, label=f"real + {_given_label(name, given)}", model=name)
            for name, given in by_name.items()
            if name not in names
        ]
        return [*known, *others]

    def turned(self, arms: Sequence[Arm], knobs: Sequence[str]) -> tuple[str, ...]:
        """Knobs that matter for those rows: none of training where all their generators are given."""
        given = {each.name for each in self.given}
        if any(arm.model is not None and arm.model not in given for arm in arms):
            return tuple(knobs)
        return tuple(name for name in knobs if name not in GENERATOR_KNOBS or name == "resolution")

    def unit(self, name: str, scale: Scale, images: Images, fold: Fold) -> GeneratorUnit:
        """The unit behind a row; a trained one is hidden the fold's test images, as the scope says."""
        blocked, of_fold = fold.mode == "blocked", images.scope == "fold"
        held_out = hold_out(images.scope, fold.index) if blocked or not of_fold else -1
        data = images.at(scale.resolution)
        for given in self.given:
            if given.name == name:
                label = MODELS[name].label if name in MODELS else name
                return given.unit(label, data, hold_out(images.scope))
        model = MODELS[name]
        return TrainGenerator(
            data=data,
            label=model.label,
            recipe=model.recipe(scale, images, held_out),
            fold=fold if of_fold and not blocked else None,
            images=self.facts.images,
        )


def _given_label(name: str, given: Given) -> str:
    """`mine: b-all@1`, or `b-all@1` where that begins with the row's name."""
    return given.shown if given.shown.startswith(f"{name}@") else f"{name}: {given.shown}"
