import math

import pytest
import torch

from model_store.generators.registry import build_generator
from training.diffaugment import DiffAugment
from training.errors import ConfigInvalidError
from training.folding import generator_config
from training.presets import PRESETS, preset


def parameters_of(name: str) -> int:
    with torch.device("meta"):
        generator = build_generator("masan", generator_config(preset(name), 4))
    return sum(p.numel() for p in generator.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_built(name: str) -> None:
    config = preset(name)

    assert config.recipe == name
    assert parameters_of(name) > 0
    DiffAugment(config.augment.policy)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("paper", 6_093_680),
        ("cellgan", 6_090_208),
        ("masan", 6_093_680),
        # The latent on its way to AdaIN, and a strength of noise per channel of the maps of side 4 to 32.
        ("masan-projected", 6_093_680 + 128 * 128 + 512 + 512 + 256 + 256),
    ],
)
def test_full_presets_have_the_published_size(name: str, count: int) -> None:
    assert parameters_of(name) == count


def test_paper_follows_the_publication() -> None:
    config = preset("paper")

    assert config.run.total_kimg * 1000 / config.optimizer.batch == 200_000
    assert (config.optimizer.generator_lr, config.optimizer.discriminator_lr) == (2e-4, 2e-4)
    assert config.augment.policy == "color"
    assert config.discriminator.san_head == "per_class"
    assert config.losses.r1_gamma / 2 == 0.01
    assert config.losses.r1_every == 1
    assert (config.data.label_mode, config.data.flips, config.data.rot90) == ("keep", False, False)


def test_averages_of_weights_decay_as_published() -> None:
    optimizer = preset("paper").optimizer

    assert math.pow(0.5, optimizer.batch / (optimizer.ema_kimg * 1000)) == pytest.approx(0.999, abs=1e-6)
    optimizer = preset("masan-projected").optimizer
    assert math.pow(0.5, optimizer.batch / (optimizer.ema_kimg * 1000)) == pytest.approx(0.9978, abs=1e-4)


def test_cellgan_follows_its_authors() -> None:
    config = preset("cellgan")

    assert config.run.total_kimg * 1000 / config.optimizer.batch == 100_000
    assert config.optimizer.generator_lr == 2.5e-4
    assert (config.generator.attention_sites, config.discriminator.san_head) == ("none", "plain")
    assert config.augment.policy == "color,translation"
    assert (config.data.flips, config.data.rot90) == (True, False)


def test_ablation_rows_differ_from_the_paper_in_what_they_take_away() -> None:
    paper = preset("paper").to_dict()

    def differences(name: str) -> set[str]:
        row = preset(name).to_dict()
        return {
            f"{part}.{field}"
            for part in paper
            if isinstance(paper[part], dict)
            for field in paper[part]
            if paper[part][field] != row[part][field]
        }

    assert differences("paper-masan-color") == set()
    assert differences("paper-attention-color") == {"discriminator.san_head"}
    assert differences("paper-cellgan-color") == {"discriminator.san_head", "generator.attention_sites"}
    assert differences("paper-masan-none") == {"augment.policy"}
    assert differences("paper-masan-color-cutout-translation") == {"augment.policy"}


def test_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigInvalidError, match="--preset 'fast' is not one of paper, cellgan, masan"):
        preset("fast")
