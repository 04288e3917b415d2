"""Prometheus families: what this process counts itself, and what is the same on every replica."""
