import json

import pytest

from training.config import DiscriminatorOptions, TrainConfig
from training.errors import ConfigInvalidError
from training.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name: str) -> None:
    config = preset(name)

    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_setting_changes_its_field_and_no_other() -> None:
    config = preset("masan")

    changed = config.with_settings(["losses.r1_gamma=2", "augment.policy=color,cutout"])

    assert changed.losses.r1_gamma == 2.0
    assert changed.augment.policy == "color,cutout"
    assert changed.with_settings(["losses.r1_gamma=0.02", "augment.policy=color"]) == config


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("generator.attention_resolutions=[64, 128]", (64, 128)),
        ("generator.attention_resolutions=none", None),
        ("generator.attention_sites=none", "none"),
        ("generator.rgb_skip=true", True),
        ("generator.base_channels=8", 8),
    ],
)
def test_values_are_read_as_toml(setting: str, value: object) -> None:
    field = setting.partition("=")[0].partition(".")[2]

    assert getattr(preset("masan").with_settings([setting]).generator, field) == value


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("losses.gamma=1", "losses.gamma: unknown; losses has .*r1_gamma"),
        ("loss.r1_gamma=1", "write part.field=value"),
        ("losses.r1_gamma", "write part.field=value"),
        ("losses.r1_gamma=much", "losses.r1_gamma 'much'"),
        ("losses.gan_loss=wgan", "losses.gan_loss 'wgan'.*hinge"),
        ("discriminator.san_head=other", "discriminator.san_head 'other'"),
        ("losses.r1_gamma=-1", "losses.r1_gamma -1: Input should be greater than or equal to 0"),
        ("discriminator.pixel_weight=-0.5", "discriminator.pixel_weight -0.5"),
        ("augment.color_probability=7", "augment.color_probability 7: .* less than or equal to 1"),
        ("optimizer.generator_lr=-1", "optimizer.generator_lr -1"),
        ("optimizer.generator_lr=nan", "optimizer.generator_lr nan is not a finite number"),
        ("optimizer.beta2=1", "optimizer.beta2 1: .* less than 1"),
        ("run.total_kimg=inf", "run.total_kimg inf is not a finite number"),
        ("run.score_images=1", "run.score_images 1 is not 0 or at least 2"),
        (
            "losses.frechet_networks=[0,2]",
            r"losses.frechet_networks \[0, 2\] is not \[0\], \[1\] or \[0, 1\]",
        ),
        ("losses.frechet_networks=[]", r"losses.frechet_networks \[\] is not"),
        (
            "losses.neighbour_weight=0.5",
            "losses.neighbour_weight 0.5: with losses.frechet_weight above 0 only",
        ),
        ("discriminator.kind=none", "leaves nothing to learn from: losses.frechet_weight is 0"),
        ("optimizer.micro_batch=8", "optimizer.micro_batch 8: with discriminator.kind=none only"),
        ("optimizer.micro_batch=-1", "optimizer.micro_batch -1"),
        ("optimizer.batch=0", "optimizer.batch 0"),
        ("generator.base_channels=-4", r"generator\.base_channels -4: .* greater than or equal to 1"),
        ("generator.attention_groups=0", r"generator\.attention_groups 0: "),
        ("generator.init_gain=-1", r"generator\.init_gain -1: "),
        ("discriminator.base_channels=0", r"discriminator\.base_channels 0: "),
        ("discriminator.feature_channels=[1, 1, 1, 0]", r"discriminator\.feature_channels \[1, 1, 1, 0\]: "),
        ("discriminator.head_channels=[1, 1, 1, 1, -1]", r"discriminator\.head_channels .*: "),
        ("run.seed=99999999999999999999", r"run\.seed 9+: .*less than"),
        ("losses.r1_every=0", "losses.r1_every 0"),
        ("data.hold_out_block=5", "data.hold_out_block 5"),
        ("discriminator.feature_channels=[1, 2]", "feature_channels needs 4 widths"),
        ("discriminator.head_channels=[1, 2]", "head_channels needs 5 widths"),
    ],
)
def test_setting_that_cannot_work_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigInvalidError, match=message):
        preset("masan").with_settings([setting])


def test_unknown_key_of_a_file_is_named() -> None:
    values = preset("masan").to_dict()
    values["optimizer"]["momentum"] = 0.9

    with pytest.raises(ConfigInvalidError, match=r"optimizer\.momentum is unknown"):
        TrainConfig.from_dict(values)


def test_projected_heads_need_images_large_enough() -> None:
    with pytest.raises(ConfigInvalidError, match=r"run\.resolution 32 is too small.*needs 64"):
        preset("cpu").with_settings(["run.resolution=32"])


def test_config_of_an_older_run_gets_the_defaults_of_newer_fields() -> None:
    values = preset("masan").to_dict()
    del values["losses"]["gan_loss"], values["discriminator"]["init_gain"]

    config = TrainConfig.from_dict(values)

    assert config == preset("masan")
    assert config.discriminator.init_gain == DiscriminatorOptions().init_gain
