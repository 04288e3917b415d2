"""The checkpoints there are: which are offered, what an alias names, reports asked for."""
