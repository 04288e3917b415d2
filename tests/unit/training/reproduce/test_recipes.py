from dataclasses import replace

import pytest

from training.config import TrainConfig
from training.diffusion.config import DiffusionConfig
from training.presets import PRESETS, preset
from training.reproduce.recipes import CELLGAN, LDM, MASAN, OURS, Images, gan_recipe, hold_out
from training.reproduce.scale import LAPTOP, PAPER
from training.reproduce.table1 import Table1
from training.reproduce.table2 import Table2

PAPERS = Images(bars="kept", deduplicate=False, scope="all")


def test_papers_images_at_papers_scale_are_the_papers_recipe() -> None:
    for row in Table1.all_rows:
        recipe = gan_recipe(row.preset, PAPER, PAPERS, hold_out("all"), seed=2077)
        published = preset(row.preset)

        assert PAPERS.are_the_papers()
        assert recipe.data == published.data
        assert recipe.run.total_kimg == published.run.total_kimg
        assert replace(recipe, run=published.run) == published


def test_rows_differ_in_recipe_and_not_in_images_or_counts() -> None:
    rows = [*Table1.all_rows, *Table2.all_rows]
    recipes = [gan_recipe(row.preset, LAPTOP, Images(), hold_out("blocks"), seed=1) for row in rows]

    seen = {(r.data.label_mode, r.data.deduplicate, r.data.hold_out_block) for r in recipes}
    runs = {(r.run.total_kimg, r.run.resolution, r.optimizer.batch, r.run.seed) for r in recipes}
    assert seen == {("mask", True, 4)}
    assert len(runs) == 1
    assert {r.generator.base_channels for r in recipes} == {LAPTOP.base_channels}
    assert {row.preset for row in rows} <= set(PRESETS)


def test_width_shrinks_all_of_a_discriminator() -> None:
    recipe = OURS.recipe(LAPTOP, Images(), 4)

    assert isinstance(recipe, TrainConfig)
    assert recipe.discriminator.base_channels == 8
    assert recipe.discriminator.feature_channels == (32, 64, 128, 256)
    assert recipe.discriminator.head_channels == (32, 32, 64, 128, 256)


def test_images_with_bars_are_never_turned() -> None:
    for model in (CELLGAN, LDM, MASAN, OURS):
        data = model.recipe(LAPTOP, PAPERS, -1).data
        assert (data.label_mode, data.flips, data.rot90) == ("keep", False, False)


def test_diffusion_baseline_takes_the_scales_own_counts() -> None:
    recipe = LDM.recipe(LAPTOP, Images(), 2, seed=5)

    assert isinstance(recipe, DiffusionConfig)
    assert recipe.autoencoder.total_kimg == LAPTOP.autoencoder_kimg
    assert (recipe.run.total_kimg, recipe.run.seed, recipe.run.resolution) == (300.0, 5, 128)
    assert recipe.sampling.steps == LAPTOP.sampling_steps
    assert recipe.data.hold_out_block == 2


@pytest.mark.parametrize(("scope", "block"), [("fold", 2), ("blocks", 4), ("all", -1)])
def test_scope_decides_what_is_held_out(scope: str, block: int) -> None:
    assert hold_out(scope, 2) == block  # type: ignore[arg-type]
