"""Figure 3: images of every generator side by side, one row a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import torch
from PIL import Image, ImageDraw

from training.data import Dataset, load_dataset
from training.errors import ConfigInvalidError
from training.evaluation.drawing import draw_images
from training.reproduce.equal_time import hours_note
from training.reproduce.experiment import DIGEST_SHOWN, Experiment, Report, Section, run_section
from training.reproduce.generators import TrainGenerator, generated_images
from training.reproduce.given import Opened, open_generator
from training.reproduce.recipes import CELLGAN, LDM, MASAN, Images, hold_out
from training.reproduce.scale import GENERATOR_KNOBS, Scale
from training.reproduce.unit import Unit
from training.reproduce.workspace import Pixels, Workspace

TRAINED: Final = {model.name: model for model in (CELLGAN, LDM, MASAN)}
TITLE: Final = "Figure 3: generated images by class"
NOTE: Final = "Generated images only, the first of each class, none chosen by hand."
REAL_LABEL: Final = "real: do not share"
_GAP, _HEADER, _NAMES = 6, 22, 110
_BLANK_LEVELS: Final = 3.0
"""Standard deviation of a channel within an image, of 255 levels, below which there is nothing to see."""
_INK, _PAPER, _WARNING = (40, 40, 40), (255, 255, 255), (190, 30, 30)

Column = tuple[str, Mapping[str, Pixels]]
"""Label, and images [n, S, S, 3] by class."""


@dataclass(frozen=True, kw_only=True)
class Figure3(Experiment):
    """The three generators of the comparison, trained where no others are given."""

    name: ClassVar[str] = "figure3"
    knobs: ClassVar[tuple[str, ...]] = GENERATOR_KNOBS
    images: Images
    n: int = 4
    side: int = 128

    def units(self, scale: Scale) -> list[Unit]:
        return list(self._trainings(scale))

    def _trainings(self, scale: Scale) -> list[TrainGenerator]:
        return [
            TrainGenerator(
                data=self.images.at(scale.resolution),
                label=TRAINED[name].label,
                recipe=TRAINED[name].recipe(scale, self.images, hold_out(self.images.scope)),
                images=self.facts.images,
            )
            for name in self.chosen(list(TRAINED))
        ]

    def columns(self, scale: Scale, workspace: Workspace) -> list[Column]:
        """Images of those that were trained; without those whose training left no generator."""
        found = [(u.label, generated_images(workspace, u, self.n)) for u in self._trainings(scale)]
        return [(label, images) for label, images in found if images is not None]

    def report(self, scale: Scale, workspace: Workspace) -> Report:
        """The trainings behind the picture; the picture itself is `draw_figure` of `columns`."""
        trainings = self._trainings(scale)
        return Report(
            title=TITLE,
            sections=(run_section(workspace, trainings),),
            notes=(NOTE, *hours_note(workspace, trainings)),
            figures={"trainings": [{"title": u.title(), **workspace.finished(u)} for u in trainings]},
        )


def blank_note(columns: Sequence[Column]) -> tuple[str, ...]:
    """Which columns hold images of one colour, as a saturated generator draws them; empty if none does."""
    blank = [
        label
        for label, images in columns
        if np.mean([image.std(axis=(0, 1)).mean() for each in images.values() for image in each])
        < _BLANK_LEVELS
    ]
    if not blank:
        return ()
    return (
        f"{', '.join(blank)}: images of one colour, as a saturated generator draws them, through whose output"
        " hardly any gradient leads back. This tells how a training can fail, not what the recipe can do.",
    )


def shown_generator(text: str, store_url: str | None, device: torch.device) -> tuple[str, Opened]:
    """What `LABEL=WHAT` names: a label, and a run folder's generator or that of a checkpoint in a store.

    store_url: None for the checkpoints that ship and those of data/store. Raises ConfigInvalidError for
    another text, and what opening a run or resolving a checkpoint raises.
    """
    label, separator, what = text.partition("=")
    if not (label and separator and what):
        raise ConfigInvalidError(f"--show {text!r}: write LABEL=RUN_FOLDER or LABEL=NAME@VERSION")
    return label, open_generator(what, store_url, device)


def shown_column(label: str, opened: Opened, n: int) -> Column:
    """The first `n` images of each of its classes."""
    images = {
        slug: draw_images(opened.generator, opened.digest, slug, index, n)
        for index, slug in enumerate(opened.classes)
    }
    return label, images


def shown_report(shown: Sequence[tuple[str, Opened]], columns: Sequence[Column]) -> Report:
    """The generators behind the picture, and what its `columns` show amiss."""
    facts = [(label, opened.facts) for label, opened in shown]
    rows = tuple(
        (
            label,
            str(one["run"]),
            f"{one['images_seen']:,}",
            f"{one['hours']:.3g}",
            str(one["device"]),
            one["digest"][:DIGEST_SHOWN],
        )
        for label, one in facts
    )
    return Report(
        title=TITLE,
        sections=(
            Section(
                title="Generators",
                header=("column", "generator", "images seen", "hours", "device", "digest"),
                rows=rows,
            ),
        ),
        notes=(NOTE, *blank_note(columns)),
        figures={"generators": [{"label": label, **one} for label, one in facts]},
    )


def real_column(root: Path, images: Images, n: int) -> Column:
    """Real images, evenly spaced over each class. Only for eyes that may see them."""
    spec = images.at(256)
    dataset = load_dataset(
        root, resolution=spec.resolution, label_mode=spec.label_mode, deduplicate=spec.deduplicate
    )
    return REAL_LABEL, {slug: _spaced(dataset, label, n) for label, slug in enumerate(dataset.classes)}


def draw_figure(columns: Sequence[Column], side: int) -> Image.Image:
    """A picture with one row a class and one block of images a column, each image `side` px wide.

    Raises ConfigInvalidError without columns, or if one lacks a class of the first.
    """
    if not columns:
        raise ConfigInvalidError("figure3 has nothing to show")
    classes = list(columns[0][1])
    for label, images in columns:
        missing = [slug for slug in classes if slug not in images]
        if missing:
            raise ConfigInvalidError(
                f"--show {label}: has no class {missing[0]!r}; it has {', '.join(images)}"
            )
    widths = [len(images[classes[0]]) * side + _GAP for _, images in columns]
    picture = Image.new("RGB", (_NAMES + sum(widths), _HEADER + len(classes) * (side + _GAP)), _PAPER)
    draw = ImageDraw.Draw(picture)
    for row, slug in enumerate(classes):
        draw.text((6, _HEADER + row * (side + _GAP) + side // 2 - 6), slug, fill=_INK)
    left = _NAMES
    for (label, images), width in zip(columns, widths, strict=True):
        draw.text((left, 5), label, fill=_WARNING if label == REAL_LABEL else _INK)
        for row, slug in enumerate(classes):
            for place, image in enumerate(images[slug]):
                tile = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
                picture.paste(tile, (left + place * side, _HEADER + row * (side + _GAP)))
        left += width
    return picture


def figure_file(out: Path, *, with_real: bool) -> Path:
    """Where the picture goes; its name warns of real images."""
    return out / ("figure3-with-real-images-do-not-share.png" if with_real else "figure3.png")


def _spaced(dataset: Dataset, label: int, n: int) -> Pixels:
    members = np.flatnonzero(dataset.labels == label)
    count = min(n, len(members))
    return np.asarray(dataset.images[members[np.arange(count) * len(members) // count]])
