"""Whether the discriminators know the images trained on by heart, told by images that they never saw.

Where they do, real images they have not seen look generated to them, and stronger augmentation helps; where
they do not, and still tell generated images well, it is the generator that lacks something.
Source: Karras et al. 2020 (ADA), the heuristic r_v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.batches import Batches
from training.data import Dataset
from training.image_random import ImageRandom
from training.loop import Trainer
from training.ranks import Ranks

ROUNDS: Final = 6
"""Batches of each kind; with 16 images a batch, a mean logit is then sure to about 0.1."""


@dataclass(frozen=True)
class OverfittingCheck:
    """Compares logits of real images trained on, of real ones never trained on, and of generated ones."""

    unseen: Dataset

    @classmethod
    def for_run(cls, unseen: Dataset) -> OverfittingCheck | None:
        """None where a class has no unseen images."""
        complete = set(unseen.labels.tolist()) == set(range(len(unseen.classes)))
        return cls(unseen) if complete else None

    @torch.no_grad()
    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """`logit_unseen`, the mean logit of real images never trained on, and `overfitting`.

        That is 0 where they are told from generated ones as clearly as images trained on, and 1 where they
        look generated. Always of the same random numbers; the run's own are left alone.
        """
        random = ImageRandom(trainer.device, 0, Ranks(), trainer.config.optimizer.batch)
        unseen_batches = Batches(self.unseen, trainer.config, trainer.device, random)
        seen_batches = trainer.batches.with_random(random)
        generator = trainer.export_generator().to(trainer.device)
        means = []
        for _ in range(ROUNDS):
            z = torch.randn(
                trainer.config.optimizer.batch, trainer.latent_dim, generator=random, device=trainer.device
            )
            row = []
            for batches in (seen_batches, unseen_batches):
                real, invented, label = batches.draw()
                fake = generator(z, label)
                judged = trainer.class_label(label)
                row.append(_mean_logits(trainer, real * ~invented, fake * ~invented, judged, random))
            means.append(row)
        (seen, fake_seen), (unseen, fake_unseen) = np.mean(means, axis=0)
        return {
            "logit_unseen": float(unseen),
            "overfitting": float(((seen - fake_seen) - (unseen - fake_unseen)) / (seen - fake_seen)),
        }


def _mean_logits(
    trainer: Trainer, real: Tensor, fake: Tensor, label: Tensor, random: ImageRandom
) -> tuple[float, float]:
    pairs = [adversary.judge(real, fake, label, random) for adversary in trainer.adversaries]
    return float(np.mean([r for r, _ in pairs])), float(np.mean([f for _, f in pairs]))
