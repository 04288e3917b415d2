from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model_store.store import Checkpoint, ModelStore
from training.errors import ConfigInvalidError
from training.reproduce.engine import run_units
from training.reproduce.experiment import Facts
from training.reproduce.figure3 import (
    REAL_LABEL,
    Figure3,
    blank_note,
    draw_figure,
    figure_file,
    real_column,
    shown_column,
    shown_generator,
    shown_report,
)
from training.reproduce.generators import generated_images
from training.reproduce.rates import Rates
from training.reproduce.recipes import Images
from training.reproduce.scale import Scale
from training.reproduce.workspace import Workspace

CPU = torch.device("cpu")


def flat(value: int, n: int = 2) -> npt.NDArray[np.uint8]:
    return np.full((n, 8, 8, 3), value, dtype=np.uint8)


def test_columns_stand_side_by_side_with_a_row_a_class() -> None:
    columns = [("A", {"x": flat(0), "y": flat(50)}), ("B", {"x": flat(100), "y": flat(150)})]

    picture = np.asarray(draw_figure(columns, 16))

    present = [
        value for value in (0, 50, 100, 150) if np.sum(np.all(picture == value, axis=2)) >= 2 * 16 * 16
    ]
    assert present == [0, 50, 100, 150]
    assert (
        np.argwhere(np.all(picture == 50, axis=2))[:, 0].min()
        >= np.argwhere(np.all(picture == 0, axis=2))[:, 0].max()
    )


def test_model_without_a_class_is_refused() -> None:
    with pytest.raises(ConfigInvalidError, match="--show B: has no class 'y'; it has x"):
        draw_figure([("A", {"x": flat(0), "y": flat(0)}), ("B", {"x": flat(0)})], 16)
    with pytest.raises(ConfigInvalidError, match="nothing to show"):
        draw_figure([], 16)


def test_columns_of_one_colour_are_named() -> None:
    varied = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)

    assert blank_note([("A", {"x": varied, "y": flat(50)})]) == ()
    (note,) = blank_note([("A", {"x": flat(255), "y": flat(50)}), ("B", {"x": varied})])
    assert note.startswith("A: images of one colour")


def test_checkpoints_and_run_folders_are_shown_by_name(
    workspace: Workspace,
    rates: Rates,
    facts: Facts,
    tiny_scale: Scale,
    model_store: ModelStore,
    tiny_checkpoint: Checkpoint,
) -> None:
    figure = Figure3(facts=facts, only=("masan",), images=Images(), n=2)
    (unit,) = figure.units(tiny_scale)
    run_units([unit], workspace, rates)
    folder = workspace.out / workspace.finished(unit)["run"]

    stored = shown_column(*shown_generator("Tiny=tiny@1", model_store.url, CPU), 2)
    shown = shown_column(*shown_generator(f"MASAN={folder}", None, CPU), 2)
    ((label, trained),) = figure.columns(tiny_scale, workspace)

    assert stored[0] == "Tiny"
    assert stored[1]["pro_b"].shape == (2, 16, 16, 3)
    assert label == "MASAN"
    assert all(np.array_equal(shown[1][slug], trained[slug]) for slug in facts.classes)
    assert generated_images(workspace, unit, 2) is not None  # type: ignore[arg-type]
    assert "none chosen by hand" in figure.report(tiny_scale, workspace).notes[0]


def test_report_names_the_generators_behind_the_picture(
    model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    shown = shown_generator("Tiny=tiny@1", model_store.url, CPU)

    report = shown_report([shown], [shown_column(*shown, 2), ("Blank", {"pro_b": flat(255)})])

    (section,) = report.sections
    assert section.rows == (("Tiny", "tiny@1", "0", "0", "cpu", tiny_checkpoint.digest[:12]),)
    assert report.figures["generators"][0]["digest"] == tiny_checkpoint.digest
    assert report.notes[-1].startswith("Blank: images of one colour")


@pytest.mark.parametrize("text", ["tiny@1", "=tiny@1", "Tiny="])
def test_text_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalidError, match="write LABEL=RUN_FOLDER or LABEL=NAME@VERSION"):
        shown_generator(text, None, CPU)


def test_real_images_are_marked_as_not_to_be_shared(smears: Path, tmp_path: Path) -> None:
    label, images = real_column(smears, Images(), 3)

    assert label == REAL_LABEL == "real: do not share"
    assert {slug: len(part) for slug, part in images.items()} == {"benign": 3, "pro": 3}
    assert figure_file(tmp_path, with_real=True).name == "figure3-with-real-images-do-not-share.png"
    assert figure_file(tmp_path, with_real=False).name == "figure3.png"
