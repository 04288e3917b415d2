"""An image's id is its recipe: everything that decides its pixels, and nothing else."""

import re
from dataclasses import dataclass
from typing import Self

_PATTERN = re.compile(
    r"^(?P<digest>[0-9a-f]{16})\.(?P<class_slug>[a-z0-9][a-z0-9_-]{0,63})\."
    r"(?P<seed>\d{1,20})\.(?P<index>\d{1,10})\.(?P<attempt>\d{1,4})\.(?P<truncation>\d{1,5})$",
    re.ASCII,
)
MAX_SEED = 2**64 - 1
TRUNCATION_STEPS = 10_000
"""Truncation is kept in steps of 1/10,000, so that the id spells it exactly."""


@dataclass(frozen=True, slots=True)
class ImageId:
    """What an image is: its id is spelled `digest.class.seed.index.attempt.truncation`.

    digest: the first 16 hex digits of the checkpoint's digest. seed: uint64. truncation: (0, 1].
    """

    digest: str
    class_slug: str
    seed: int
    index: int
    attempt: int = 0
    truncation: float = 1.0

    def __str__(self) -> str:
        steps = round(self.truncation * TRUNCATION_STEPS)
        return f"{self.digest[:16]}.{self.class_slug}.{self.seed}.{self.index}.{self.attempt}.{steps}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for a text that is no image id."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no image id")
        seed, steps = int(match["seed"]), int(match["truncation"])
        if seed > MAX_SEED or not 0 < steps <= TRUNCATION_STEPS:
            raise ValueError(f"{text!r} is no image id")
        return cls(
            digest=match["digest"],
            class_slug=match["class_slug"],
            seed=seed,
            index=int(match["index"]),
            attempt=int(match["attempt"]),
            truncation=steps / TRUNCATION_STEPS,
        )
