import json
import re
from pathlib import Path

import pytest
import torch

from model_store.builtin import builtin_store
from tests.tiny_training import tiny_config, tiny_dataset
from training.config import TrainConfig
from training.diffusion.config import DiffusionConfig
from training.errors import ConfigInvalidError
from training.loop import Trainer
from training.origin import load_origin
from training.plan import Wish, choose_device, describe, estimate, plan
from training.presets import preset
from training.run_dir import RunDir


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    config = tiny_config("data.classes={Early='early'}")
    return RunDir.create(tmp_path / "run", config, tiny_dataset(), torch.device("cpu"))


def planned(wish: Wish) -> TrainConfig:
    config = plan(wish).config
    assert isinstance(config, TrainConfig)
    return config


def test_default_is_what_a_cpu_can_train() -> None:
    assert plan(Wish()).config == preset("cpu")
    assert isinstance(plan(Wish(preset="ldm-cpu")).config, DiffusionConfig)


def test_options_and_settings_change_the_preset() -> None:
    wish = Wish(
        preset="masan",
        resolution=128,
        total_kimg=3,
        classes={"Early": "early"},
        settings=("losses.r1_gamma=2",),
    )

    config = planned(wish)

    assert (config.run.resolution, config.run.total_kimg, config.losses.r1_gamma) == (128, 3.0, 2.0)
    assert config.data.classes == {"Early": "early"}
    assert plan(wish).changes == [
        "losses.r1_gamma=2",
        "run.resolution=128",
        "run.total_kimg=3",
        "data.classes.Early=early",
    ]


def test_resumed_run_keeps_its_configuration_but_for_what_is_said(run_dir: RunDir) -> None:
    config = planned(Wish(resume=run_dir.path, total_kimg=9))

    assert config == run_dir.config().with_settings(["run.total_kimg=9"])
    with pytest.raises(ConfigInvalidError, match=r"--preset 'cpu': .* is a run of 'smoke'"):
        plan(Wish(resume=run_dir.path, preset="cpu"))


def test_grown_run_has_twice_the_side_and_starts_from_the_smaller_image(run_dir: RunDir) -> None:
    config = planned(Wish(grow=run_dir.path))

    assert config.run.resolution == 2 * run_dir.config().run.resolution
    assert config.generator.rgb_skip
    assert config.optimizer.warmup_kimg > 0
    assert config.data.classes == {"Early": "early"}
    assert planned(Wish(grow=run_dir.path, settings=("optimizer.warmup_kimg=0",))).optimizer.warmup_kimg == 0


def test_run_from_a_checkpoint_has_its_networks_and_size() -> None:
    origin = load_origin("b-all")
    config = planned(Wish(init=origin, settings=("generator.noise_resolutions=[8]",)))

    assert config.run.resolution == builtin_store().resolve("b-all").manifest.resolution
    assert config.generator.base_channels == origin.config["base_channels"]
    assert config.generator.rgb_skip == origin.config["rgb_skip"]
    assert config.generator.noise_resolutions == (8,)
    assert config.optimizer.warmup_kimg > 0
    with pytest.raises(ConfigInvalidError, match=r"run.total_kimg 24 is below the \d+\.?\d* that b-all@"):
        plan(Wish(init=load_origin("b-all"), preset="frechet"))
    with pytest.raises(ConfigInvalidError, match="preset ldm-cpu is a diffusion model"):
        plan(Wish(init=load_origin("b-all"), preset="ldm-cpu"))


def test_resume_and_grow_exclude_each_other(run_dir: RunDir) -> None:
    with pytest.raises(ConfigInvalidError, match="--resume and --grow exclude each other"):
        plan(Wish(resume=run_dir.path, grow=run_dir.path))


def test_description_opens_with_the_configuration_and_counts_whole_parameters() -> None:
    text = describe(estimate(tiny_config(), torch.device("cpu")))

    config, end = json.JSONDecoder().raw_decode(text)
    lines = text[end:].strip().splitlines()
    assert TrainConfig.from_dict(config) == tiny_config()
    assert lines[0].startswith("parameters, 4 classes: generator ")
    trainer = Trainer(tiny_config(), tiny_dataset(classes=4))
    networks = trainer.G, trainer.adversaries[0].module
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert [int(count) for count in re.findall(r" (\d+)(?:,|$)", lines[0])] == [*counts, 0]
    assert lines[1].startswith("FLOPs per image: generator ")
    assert "estimated" in lines[2]
    assert "images/s" in lines[3]
    assert "never measured" in lines[4]


def test_data_may_be_left_out_only_when_a_run_knows_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalidError, match="--data is missing"):
        plan(Wish()).run(data=None, out=tmp_path, device="cpu", time_budget_s=1, threads=1)


@pytest.mark.parametrize("inside", ["", "runs/first"])
def test_run_folder_among_the_classes_is_refused(tmp_path: Path, inside: str) -> None:
    with pytest.raises(ConfigInvalidError, match=r"--out .* lies in --data .*, whose folders are classes"):
        plan(Wish(preset="smoke")).run(
            data=tmp_path, out=tmp_path / inside, device="cpu", time_budget_s=1.0, threads=1
        )

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "meta", "cuda:99"])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ConfigInvalidError, match=f"--device '{device}'"):
        choose_device(device)


def test_auto_is_the_gpu_if_there_is_one() -> None:
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
