from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.tiny_training import tiny_config, tiny_dataset
from training.cost import CPU_SHARE, estimated_rate, measure_cost
from training.hardware import Choice
from training.loop import Trainer
from training.presets import preset


def test_published_networks_have_their_published_sizes() -> None:
    cost = measure_cost(preset("paper"), 4)

    assert cost.generator_parameters == 6_093_680
    assert cost.discriminator_parameters == 7_266_852
    assert cost.frozen_parameters == 0
    # Published: 9.95 G for the generator, of which the transposed convolutions save 9/4 in the up-blocks;
    # 6.858 G for the discriminator without its decoders.
    assert cost.generator_flops == pytest.approx(4.866e9, rel=0.01)
    assert cost.discriminator_flops == pytest.approx(6.858e9, rel=0.001)


def test_lazy_r1_costs_its_share() -> None:
    always, lazy, never = (
        measure_cost(tiny_config(f"losses.r1_every={every}", f"losses.r1_gamma={gamma}"), 2).step_flops
        for every, gamma in ((1, 1), (4, 1), (1, 0))
    )

    assert lazy == pytest.approx(never + (always - never) / 4, rel=1e-6)
    assert always > 1.2 * never


def test_batch_changes_memory_and_not_flops() -> None:
    small = measure_cost(tiny_config("optimizer.batch=4"), 2)
    large = measure_cost(tiny_config("optimizer.batch=16"), 2)

    assert large.step_flops == pytest.approx(small.step_flops, rel=0.02)
    assert small.memory_bytes < large.memory_bytes < 4 * small.memory_bytes


def test_classes_held_cost_what_any_others_do() -> None:
    held = tiny_config('data.held_classes=["pro_b"]')  # a dry run reads no data, hence knows no names

    assert measure_cost(held, 4) == measure_cost(tiny_config(), 4)


def test_run_without_discriminators_costs_its_generator_and_the_frozen_network() -> None:
    settings = ["run.resolution=64", "optimizer.batch=8", "optimizer.micro_batch=4"]

    cost = measure_cost(preset("frechet").with_settings(settings), 2)

    assert cost.discriminator_parameters == cost.discriminator_flops == 0
    assert cost.frozen_parameters > 3e6
    assert cost.step_flops > 3 * cost.generator_flops > 0  # the generator's step, not one in which it waits


def test_rate_is_what_the_calibration_allows() -> None:
    cost = measure_cost(tiny_config(), 2)
    choice = Choice("fp32", "contiguous", flops_per_second=1e9)

    rate = estimated_rate(cost, torch.device("cpu"), choice)

    assert rate * cost.step_flops == pytest.approx(CPU_SHARE * 1e9)


@pytest.mark.parametrize("kind", ["pixel", "projected", "combined"])
def test_step_waits_for_no_device(kind: str) -> None:
    """Tensors without content cannot be waited for: reading one on the host raises."""
    side = 16 if kind == "pixel" else 64
    config = tiny_config(f"discriminator.kind={kind}", f"run.resolution={side}")
    config = replace(config, losses=replace(config.losses, lecam_weight=0.1))
    trainer = Trainer(config, tiny_dataset(side=side))

    with FakeTensorMode(allow_non_fake_inputs=True):
        terms = trainer.step()

    assert terms["loss_D"].shape == ()
