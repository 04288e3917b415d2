"""Per-class quality of a checkpoint against real images."""
