from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F

from tests.smears import make_smear_dataset
from training.data import Dataset, load_dataset
from training.errors import RunInvalidError
from training.loop import Trainer
from training.optimizers import GAIN_LR_FACTOR
from training.presets import preset
from training.starting import grow_from

# Starting from a published checkpoint: test_origin.py.


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Dataset]:
    """The same eight smears at two sizes."""
    root = tmp_path_factory.mktemp("starting")
    smears = make_smear_dataset(root / "smears", per_class=2)
    return {
        side: load_dataset(smears, resolution=side, deduplicate=False, cache_dir=root) for side in (16, 32)
    }


def build(datasets: Mapping[int, Dataset], *settings: str, resolution: int = 32) -> Trainer:
    base = [f"run.resolution={resolution}", "discriminator.kind=pixel", "generator.latent_dim=8"]
    return Trainer(preset("smoke").with_settings([*base, *settings]), datasets[resolution])


def step(trainer: Trainer, times: int) -> None:
    for _ in range(times):
        trainer.step()


def test_grown_generator_starts_with_the_smaller_ones_image(datasets: Mapping[int, Dataset]) -> None:
    small = build(datasets, resolution=16)
    step(small, 2)
    large = build(datasets, "generator.rgb_skip=true", "optimizer.warmup_kimg=0.008", resolution=32)
    z, label = torch.randn(4, 8), torch.eye(4)

    grow_from(large, small.state_dict())

    with torch.no_grad():
        before, after = (t.export_generator()(z, label) for t in (small, large))
        doubled = F.interpolate(before.atanh(), scale_factor=2.0, mode="bilinear", align_corners=False).tanh()
        torch.testing.assert_close(after, doubled, rtol=0, atol=1e-3)
    assert large.images_seen == small.images_seen == 16
    correction = dict(large.G.named_parameters())["correction_gain"]
    step(large, 2)  # one step of D alone, then both
    rate = large.config.optimizer.generator_lr
    assert abs(correction.item()) == pytest.approx(GAIN_LR_FACTOR * rate, rel=0.01)  # Adam's first step


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "needs generator.rgb_skip=true"),
        (("generator.rgb_skip=true", "generator.base_channels=8"), "does not fit"),
    ],
)
def test_growing_into_what_does_not_fit_is_refused(
    datasets: Mapping[int, Dataset], settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RunInvalidError, match=message):
        grow_from(build(datasets, *settings), build(datasets, resolution=16).state_dict())


def test_growing_a_generator_of_other_classes_is_refused(datasets: Mapping[int, Dataset]) -> None:
    state = build(datasets, resolution=16).state_dict()
    state["classes"] = [*state["classes"][:-1], "another"]

    with pytest.raises(RunInvalidError, match=r"was trained on .*'another'"):
        grow_from(build(datasets, "generator.rgb_skip=true"), state)


def test_run_does_not_go_on_with_other_classes_held(datasets: Mapping[int, Dataset]) -> None:
    held = datasets[32].classes[0]
    state = build(datasets).state_dict()

    with pytest.raises(RunInvalidError, match=r"data.held_classes: the run holds \[\]"):
        build(datasets, f'data.held_classes=["{held}"]').load_state_dict(state)
