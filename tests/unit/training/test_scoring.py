from pathlib import Path

import pytest

from tests.tiny_training import tiny_config, tiny_dataset
from training.loop import Tick, Trainer
from training.scoring import Scorer

LEARNING = (
    "optimizer.batch=16",
    "optimizer.generator_lr=1e-3",
    "optimizer.discriminator_lr=1e-3",
    "optimizer.ema_kimg=0.1",
    "generator.init_gain=1.0",
    "generator.adain_input=class+z",
    "generator.latent_dim=128",
    "generator.base_channels=8",
    "discriminator.init_gain=1.0",
    "losses.mean_color_weight=1.0",
    "augment.policy=''",
    "run.score_images=32",
)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "side", "images"), [("projected", 64, 2_000), ("pixel", 32, 4_000)])
def test_generator_learns_until_its_distance_to_real_images_is_half(
    kind: str, side: int, images: int, tmp_path: Path
) -> None:
    """Judged by features that no discriminator sees."""
    dataset = tiny_dataset(per_class=32, side=side)
    config = tiny_config(*LEARNING, f"discriminator.kind={kind}", f"run.resolution={side}")
    trainer = Trainer(config, dataset)
    scorer = Scorer.for_run(config, dataset, tmp_path)
    before = scorer(trainer)

    ticks: list[Tick] = []
    trainer.run_until(images, stop=lambda: False, on_tick=ticks.append)

    after = scorer(trainer)
    assert after["kid/mean"] < before["kid/mean"] / 2, (before, after)
    assert after["frechet/mean"] < before["frechet/mean"]
    assert after["nearest/own"] == 1.0
    assert ticks[-1].images_seen == images


def test_scores_are_lite2_s_against_the_images_trained_on(tmp_path: Path) -> None:
    config = tiny_config("run.score_images=4")

    scorer = Scorer.for_run(config, tiny_dataset(), tmp_path)
    scores = scorer(Trainer(config, tiny_dataset()))

    assert "lite2" in scorer.reference.extractor.name.lower()
    assert len(scorer.reference.features) == len(tiny_dataset())
    assert scores["kid/mean"] == pytest.approx((scores["kid/class_0"] + scores["kid/class_1"]) / 2)
