"""Errors of the training package.

TrainingError
├── ConfigInvalidError      a setting that does not exist or has a value that cannot work
├── DatasetInvalidError     a folder that cannot be trained on
├── RunInvalidError         a run folder that cannot be resumed or published
├── WeightsAbsentError      published weights that a figure needs and that are not here
├── TrainingDivergedError   a loss or a weight that is no longer finite
└── StoppedError            asked to stop before the end; what is finished is kept
"""

import math


class TrainingError(Exception):
    """Root of everything the training package raises. `exit_code` of the command: 2 for bad input."""

    exit_code = 2


class ConfigInvalidError(TrainingError):
    """A setting is unknown or cannot work; the message names it, its value and what is allowed."""


class DatasetInvalidError(TrainingError):
    """The dataset at `root` cannot be used."""

    def __init__(self, root: object, reason: str) -> None:
        self.root = str(root)
        self.reason = reason
        super().__init__(f"dataset {root}: {reason}")


class RunInvalidError(TrainingError):
    """The run folder cannot be resumed, grown or published."""


class StoppedError(TrainingError):
    """SIGTERM or Ctrl-C came before the work was done; the message says how to go on."""

    exit_code = 130


class WeightsAbsentError(TrainingError):
    """Published weights are not here; the message says where to get and where to put them."""


class TrainingDivergedError(TrainingError):
    """A loss is not finite any more; the last good state is kept."""

    exit_code = 1

    def __init__(self, images_seen: int, losses: dict[str, float], kept: str = "") -> None:
        self.images_seen = images_seen
        self.losses = losses
        broken = {name: value for name, value in losses.items() if not math.isfinite(value)} or losses
        values = ", ".join(f"{name} is {value}" for name, value in broken.items())
        super().__init__(f"training diverged, {values} after {images_seen} images{kept and '; ' + kept}")
