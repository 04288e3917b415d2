import pytest
import torch
from torch import Tensor, nn

from training.config import RunConfig
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
