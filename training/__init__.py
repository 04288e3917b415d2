"""Everything needed only to learn and to judge: data, discriminators, losses, trainer, evaluation."""
