"""Checkpoints and the networks that give them a meaning. Bottom layer: imports nothing of ours."""
