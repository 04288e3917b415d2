import pytest
import torch
from torch import Tensor, nn

from tests.tiny_diffusion import CPU, dataset_in_memory, diffusion_config
from training.config import RunConfig
from training.diffusion.autoencoder import AutoencoderTrainer, Latents
from training.diffusion.config import DiffusionConfig
from training.diffusion.denoiser import DenoiserTrainer
from training.diffusion.stage import StageTrainer
from training.errors import TrainingDivergedError
from training.loop import Tick


class Line(StageTrainer):
    """A line fitted to y = 3 x; `lr` of 0.1, batches of 8."""

    name = "line"

    def __init__(self, slope: float = 3.0) -> None:
        torch.manual_seed(0)
        network = nn.Linear(1, 1, bias=False)
        run = RunConfig(tick_kimg=0.016)
        super().__init__(network, torch.optim.SGD(network.parameters(), lr=0.1), run, 8, 0.6)
        self.slope = slope

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        x = torch.randn(self.batch, 1, generator=self.random)
        return (self.network(x) - self.slope * x).square().mean(), {}


def test_average_follows_its_closed_form() -> None:
    trainer = Line()
    weight = dict(trainer.network.named_parameters())["weight"]
    expected = weight.detach().clone()

    for step in range(1, 9):
        trainer.step()
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()

    torch.testing.assert_close(trainer.average["weight"], expected)
    assert torch.equal(dict(trainer.averaged().named_parameters())["weight"], trainer.average["weight"])


def test_ticks_tell_mean_losses_and_stop_ends_the_stage() -> None:
    trainer, ticks = Line(), list[Tick]()

    trainer.run_until(1000, stop=lambda: trainer.images_seen >= 40, on_tick=ticks.append)

    assert [tick.images_seen for tick in ticks] == [16, 32, 40]
    assert ticks[0].losses["loss"] > ticks[-1].losses["loss"] > 0


def test_loss_that_is_not_finite_ends_the_stage() -> None:
    trainer = Line(slope=float("inf"))

    with pytest.raises(TrainingDivergedError):
        trainer.run_until(64, stop=lambda: False, on_tick=lambda _: None)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_resumed_stage_learns_at_the_rates_it_is_told_now(is_first: bool) -> None:
    before, after = (
        diffusion_config().with_settings(
            [f"autoencoder.lr={lr}", f"denoiser.lr={lr}", f"denoiser.weight_decay={decay}"]
        )
        for lr, decay in ((1e-3, 0.01), (5e-5, 0.2))
    )

    def build(config: DiffusionConfig) -> StageTrainer:
        if is_first:
            return AutoencoderTrainer(config, dataset_in_memory(), CPU)
        latents = Latents(
            torch.zeros(8, 1, 4, 4, 4).half(),
            torch.ones(8, 1, 1, 4, 4, dtype=torch.bool),
            torch.arange(8) % 2,
            1.0,
        )
        return DenoiserTrainer(config, 2, latents, CPU)

    first, resumed = build(before), build(after)
    first.step()
    resumed.load_state_dict(first.state_dict())

    (group,) = resumed.optimizer.param_groups
    assert group["lr"] == 5e-5
    assert group["weight_decay"] == (0 if is_first else 0.2)
    moments = next(iter(resumed.optimizer.state.values()))
    assert int(moments["step"]) == 1
