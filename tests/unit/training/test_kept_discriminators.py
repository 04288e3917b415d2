from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from model_store.store import ModelStore
from tests.checkpoints import publish_tiny
from tests.smears import make_smear_dataset
from training.kept_discriminators import encode_discriminators, load_discriminators
from training.loop import Trainer
from training.presets import preset
from training.runner import load_split


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    smears = make_smear_dataset(tmp_path_factory.mktemp("kept") / "smears", per_class=4)
    config = preset("smoke").with_settings(["losses.energy_weight=1", "losses.color_energy_weight=1"])
    return Trainer(config, load_split(config, Path(smears))[0])


def test_all_that_is_trained_is_kept_in_half_precision_and_no_image_remembered(trainer: Trainer) -> None:
    kept = load(encode_discriminators(trainer.state_dict()))

    discriminators = torch.nn.ModuleList(adversary.module for adversary in trainer.adversaries)
    parameters = dict(discriminators.named_parameters())
    assert parameters.keys() <= kept.keys()
    assert {value.dtype for value in kept.values()} == {torch.float16, torch.int64}
    for name, parameter in parameters.items():
        torch.testing.assert_close(kept[name].float(), parameter, rtol=1e-3, atol=1e-6)
    left_out = discriminators.state_dict().keys() - kept.keys()
    assert {name.rpartition(".")[2] for name in left_out} == {"real", "labels", "_extra_state"}


def test_tensor_that_float16_cannot_hold_is_named(trainer: Trainer) -> None:
    state = trainer.state_dict()
    name = next(iter(state["D"]))
    damaged = {**state, "D": {**state["D"], name: torch.full_like(state["D"][name], 1e6)}}

    with pytest.raises(ValueError, match=f"discriminator tensor {name} is not finite as float16"):
        encode_discriminators(damaged)


def test_checkpoint_that_kept_none_has_none(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))

    assert load_discriminators(store, publish_tiny(store)) is None
