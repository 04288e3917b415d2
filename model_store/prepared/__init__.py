"""Generators derived from a checkpoint for serving: the same map, computed faster. Not for training."""
