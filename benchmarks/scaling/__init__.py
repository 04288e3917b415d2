"""What benchmarks/scale.py measures with: stand-in workers, a fleet of them, recorded commands."""
