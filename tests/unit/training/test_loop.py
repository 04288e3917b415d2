from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from tests.smears import make_smear_dataset
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.errors import RunInvalidError, TrainingDivergedError
from training.frechet_loss import ClassTransport, FeatureDistance, FrechetLoss
from training.loop import Tick, Trainer
from training.presets import preset
from training.run_dir import RunDir

MATCHING = ("losses.frechet_weight=1", "optimizer.warmup_kimg=0")
"""Of a run without discriminators."""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Dataset]:
    """The same eight smears at several sizes."""
    root = tmp_path_factory.mktemp("loop")
    smears = make_smear_dataset(root / "smears", per_class=2)
    return {
        side: load_dataset(smears, resolution=side, deduplicate=False, cache_dir=root) for side in (32, 64)
    }


def config(*settings: str, resolution: int = 32, kind: str = "pixel") -> TrainConfig:
    base = [f"run.resolution={resolution}", f"discriminator.kind={kind}", "generator.latent_dim=8"]
    return preset("smoke").with_settings([*base, *settings])


def build(
    datasets: Mapping[int, Dataset], *settings: str, resolution: int = 32, kind: str = "pixel"
) -> Trainer:
    return Trainer(config(*settings, resolution=resolution, kind=kind), datasets[resolution])


def train(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in trainer.step().items()} for _ in range(steps)]


def assert_same(a: Any, b: Any, path: str = "state") -> None:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, Mapping):
        assert a.keys() == b.keys(), path
        for key in a:
            if key != "seconds_trained":
                assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{path}[{i}]")
    else:
        assert a == b, path


def snapshot(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in parameters.items()}


@pytest.mark.parametrize(
    ("kind", "weights"), [("pixel", [1.0]), ("projected", [1.0]), ("combined", [1.0, 0.25])]
)
def test_step_teaches_every_network(datasets: Mapping[int, Dataset], kind: str, weights: list[float]) -> None:
    trainer = build(datasets, resolution=64, kind=kind)
    before = [
        snapshot(dict(m.named_parameters())) for m in (trainer.G, *(a.module for a in trainer.adversaries))
    ]

    (terms,) = train(trainer, 1)

    assert [adversary.weight for adversary in trainer.adversaries] == weights
    assert all(np.isfinite(value) for value in terms.values())
    assert trainer.images_seen == 8
    after = [dict(m.named_parameters()) for m in (trainer.G, *(a.module for a in trainer.adversaries))]
    for old, new in zip(before, after, strict=True):
        unmoved = [name for name in old if new[name].requires_grad and torch.equal(old[name], new[name])]
        assert unmoved == []


def test_losses_fall(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(
        datasets, "losses.mean_color_weight=1.0", "discriminator.init_gain=1.0", "generator.init_gain=1.0"
    )

    rows = train(trainer, 40)

    def mean(name: str, part: slice) -> float:
        return float(np.mean([row[name] for row in rows[part]]))

    for name in ("reconstruction", "color"):
        assert mean(name, slice(-5, None)) < 0.8 * mean(name, slice(5)), name


def test_same_seed_gives_the_same_losses_and_another_seed_others(datasets: Mapping[int, Dataset]) -> None:
    first, second, other = (train(build(datasets, f"run.seed={seed}"), 2) for seed in (1, 1, 2))

    assert first == second
    assert first[0] != other[0]


@pytest.mark.parametrize(("kind", "resolution"), [("pixel", 32), ("combined", 64), ("none", 64)])
def test_resumed_run_equals_one_that_never_stopped(
    datasets: Mapping[int, Dataset], tmp_path: Path, kind: str, resolution: int
) -> None:
    policy = "augment.policy=color,translation,cutout"
    settings: tuple[str, ...] = ("losses.r1_every=3", "losses.lecam_weight=0.1", policy)
    if kind == "none":
        settings = (*MATCHING, "optimizer.micro_batch=4", "optimizer.rampup_kimg=0.016")
    whole = build(datasets, *settings, resolution=resolution, kind=kind)
    stopped = build(datasets, *settings, resolution=resolution, kind=kind)
    run_dir = RunDir.create(tmp_path / "run", stopped.config, datasets[resolution], stopped.device)

    unbroken = train(whole, 4)
    train(stopped, 2)
    run_dir.save_state(stopped.state_dict())
    resumed = build(datasets, *settings, "run.seed=5", resolution=resolution, kind=kind)
    resumed.load_state_dict(RunDir.open(run_dir.path).load_state())
    continued = train(resumed, 2)

    assert continued == unbroken[2:]
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert_same({**ours, "config": None}, {**theirs, "config": None})


def test_rates_may_change_their_ratios_where_a_run_goes_on(datasets: Mapping[int, Dataset]) -> None:
    settings = ("generator.noise_resolutions=[4,8]", "optimizer.added_lr_factor=5")
    first = build(datasets, *settings)
    train(first, 1)

    for factor in (0.5, 1):  # slower than the others, and in one group with them
        second = build(datasets, *settings, f"optimizer.added_lr_factor={factor}")
        second.load_state_dict(first.state_dict())

        ours, theirs = second.optimizer_G.state, first.optimizer_G.state
        for (name, weight), before in zip(second.G.named_parameters(), first.G.parameters(), strict=True):
            assert_same(ours[weight], theirs[before], name)
        rate = first.config.optimizer.generator_lr
        assert {group["full_lr"] / rate for group in second.optimizer_G.param_groups} == {1, factor}


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance asks something after a few images."""
    monkeypatch.setattr("training.frechet_loss.WINDOW", 4)


@pytest.mark.usefixtures("short_windows")
def test_generator_learns_from_the_distance_alone(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets, *MATCHING, "losses.neighbour_weight=1", resolution=64, kind="none")
    before = snapshot(dict(trainer.G.named_parameters()))

    rows = train(trainer, 2)

    assert trainer.adversaries == []
    assert trainer.images_seen == 16
    assert rows[-1].keys() == {"frechet", "neighbours"}
    assert rows[-1]["frechet"] > 0
    unmoved = [name for name, new in trainer.G.named_parameters() if torch.equal(before[name], new)]
    assert unmoved == []


@pytest.mark.usefixtures("short_windows")
def test_neighbours_without_a_weight_are_left_out(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets, *MATCHING, resolution=64, kind="none")

    rows = train(trainer, 2)

    assert rows[-1].keys() == {"frechet"}
    state = cast("FrechetLoss", trainer.frechet).state_dict()
    assert not [name for name in state if "neighbours" in name]


@pytest.mark.usefixtures("short_windows")
def test_parts_of_a_batch_give_its_gradient(datasets: Mapping[int, Dataset]) -> None:
    first = build(datasets, *MATCHING, resolution=64, kind="none")
    train(first, 1)  # the moments are known from here on
    gradients = []
    for part in (0, 4):
        trainer = build(datasets, *MATCHING, f"optimizer.micro_batch={part}", resolution=64, kind="none")
        trainer.load_state_dict(first.state_dict())
        (distance,) = cast("FrechetLoss", trainer.frechet).distances
        for transport in cast("FeatureDistance", distance).transports:
            cast("ClassTransport", transport).images_since_fit = -64  # no fit between the parts
        trainer.step()
        gradients.append({name: cast("Tensor", p.grad) for name, p in trainer.G.named_parameters()})

    whole, parts = gradients
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=2e-2, atol=1e-2 * float(gradient.abs().max()))


@pytest.mark.usefixtures("short_windows")
def test_distance_learns_alone_at_first(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets, *MATCHING, "optimizer.warmup_kimg=0.016", resolution=64, kind="none")
    before = snapshot(dict(trainer.G.named_parameters()))

    train(trainer, 2)

    assert trainer.images_seen == 0
    assert all(torch.equal(before[name], p) for name, p in trainer.G.named_parameters())
    train(trainer, 1)
    assert trainer.images_seen == 8


@pytest.mark.usefixtures("short_windows")
def test_distance_beside_a_discriminator_is_told(datasets: Mapping[int, Dataset]) -> None:
    weights = ("losses.frechet_weight=0.5", "losses.neighbour_weight=2")
    trainer = build(datasets, *weights, resolution=64, kind="projected")

    rows = train(trainer, 2)

    assert {"loss_G", "loss_D", "frechet", "neighbours"} <= rows[-1].keys()
    assert rows[-1]["frechet"] > 0


def test_real_images_are_told_as_every_network_sees_them(datasets: Mapping[int, Dataset]) -> None:
    told: list[tuple[str, int, int]] = []
    two = config("losses.frechet_weight=1", "losses.frechet_networks=[0,1]", resolution=64)

    Trainer(two, datasets[64], progress=lambda *values: told.append(values))

    count = len(datasets[64].labels)
    assert told[-1] == ("features of real images", 2 * count, 2 * count)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


def test_rates_rise_at_the_start_and_fall_to_zero_at_the_end(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(
        datasets, "run.total_kimg=0.064", "optimizer.rampup_kimg=0.016", "optimizer.decay_kimg=0.032"
    )
    full = trainer.config.optimizer.generator_lr

    rates = []
    for _ in range(8):
        trainer.step()
        rates.append([o.param_groups[0]["lr"] / full for o in (trainer.optimizer_G, trainer.optimizer_D)])

    expected = [0.5, 1, 1, 1, 1, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5]
    np.testing.assert_allclose(rates, np.array([expected, expected]).T, rtol=1e-6)


def test_averaged_weights_follow_their_closed_form(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(
        datasets, "optimizer.ema_kimg=0.024", "optimizer.ema_rampup=1000.0"
    )  # half-life of 24 images
    decay = 0.5 ** (8 / 24)
    live = [snapshot(trainer.G_ema)]

    for _ in range(3):
        trainer.step()
        live.append(snapshot(dict(trainer.G.named_parameters())))

    for name, average in trainer.G_ema.items():
        expected = decay**3 * live[0][name]
        expected = expected + sum((1 - decay) * decay ** (3 - i) * live[i][name] for i in (1, 2, 3))
        torch.testing.assert_close(average, expected, rtol=1e-4, atol=1e-7)


def test_exported_generator_draws_what_the_averaged_weights_draw(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets)
    train(trainer, 2)
    z, label = torch.randn(4, 8), torch.eye(4)

    exported = trainer.export_generator()

    with torch.no_grad():
        weights = trainer.normalize_G(trainer.G_ema, iterations=200)
        expected = functional_call(trainer.G, weights, (z, label))
        torch.testing.assert_close(exported(z, label), expected, rtol=0, atol=5e-3)
    assert not exported.training
    assert not any(p.requires_grad for p in exported.parameters())


def test_fresh_discriminator_learns_alone_at_first(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets, "optimizer.warmup_kimg=0.016")
    before = snapshot(dict(trainer.G.named_parameters()))

    rows = train(trainer, 2)

    assert all("loss_G" not in row for row in rows)
    assert trainer.images_seen == 0
    assert all(torch.equal(before[name], p) for name, p in trainer.G.named_parameters())
    assert "loss_G" in train(trainer, 1)[0]


def test_invented_pixels_are_never_looked_at(datasets: Mapping[int, Dataset]) -> None:
    data = datasets[32]
    invented = np.zeros_like(data.invented)
    invented[:, 24:, 20:] = True
    repainted = data.images.copy()
    repainted[invented] = np.random.default_rng(0).integers(0, 256, repainted[invented].shape)
    settings = config("augment.policy=translation")

    first, second = (
        train(Trainer(settings, replace(data, images=images, invented=invented)), 2)
        for images in (data.images, repainted)
    )

    assert first == second
    assert first != train(Trainer(settings, replace(data, images=repainted)), 2)


def test_run_ticks_and_stops_where_it_should(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets, "run.tick_kimg=0.016")
    ticks: list[Tick] = []

    trainer.run_until(40, stop=lambda: False, on_tick=ticks.append)
    trainer.run_until(400, stop=lambda: trainer.images_seen >= 48, on_tick=ticks.append)

    assert [tick.images_seen for tick in ticks] == [16, 32, 40, 48]
    assert all(tick.images_per_second > 0 and "loss_D" in tick.losses for tick in ticks)
    assert trainer.seconds_trained > 0


def test_divergence_is_reported_with_its_numbers(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets)
    with torch.no_grad():
        next(trainer.G.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingDivergedError) as error:
        trainer.run_until(64, stop=lambda: False, on_tick=lambda _: None)

    assert error.value.images_seen > 0
    assert any(not np.isfinite(value) for value in error.value.losses.values())


def test_state_of_other_classes_is_refused(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets)
    state = {**trainer.state_dict(), "classes": ["a", "b"]}

    with pytest.raises(RunInvalidError, match=r"was trained on \['a', 'b'\]"):
        trainer.load_state_dict(state)


def test_plain_sgd_takes_the_literal_step(datasets: Mapping[int, Dataset]) -> None:
    trainer = build(datasets, "optimizer.kind=sgd", "optimizer.generator_lr=0.5")
    before = {name: p.detach().clone() for name, p in trainer.G.named_parameters()}

    trainer.step()

    for name, parameter in trainer.G.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter, before[name] - 0.5 * parameter.grad, atol=1e-7), name


def test_refinements_and_noise_learn_at_their_own_rate(datasets: Mapping[int, Dataset]) -> None:
    rate = 2.0**-10
    trainer = build(
        datasets,
        "generator.refine_resolutions=[8]",
        "generator.noise_resolutions=[4]",
        f"optimizer.generator_lr={rate}",
        "optimizer.added_lr_factor=5",
    )
    before = {name: p.detach().clone() for name, p in trainer.G.named_parameters()}

    train(trainer, 1)

    for name, parameter in trainer.G.named_parameters():
        factor = 5 if name.startswith("refine.") or "noise" in name else 1
        moved = (parameter - before[name]).abs().max().item()
        if not name.startswith(("refine.8.inner", "refine.8.norm")):  # no gradient before `outer` has moved
            assert moved == pytest.approx(factor * rate, rel=0.01), name  # Adam's first step


def test_resumed_trainer_takes_new_learning_rates(datasets: Mapping[int, Dataset]) -> None:
    first = build(datasets)
    train(first, 1)

    second = build(datasets, "optimizer.generator_lr=0.125")
    second.load_state_dict(first.state_dict())

    assert second.optimizer_G.param_groups[0]["lr"] == 0.125
    assert_same(second.optimizer_G.state_dict()["state"], first.optimizer_G.state_dict()["state"])
