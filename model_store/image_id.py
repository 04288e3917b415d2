"""An image's id is its recipe: everything that decides its pixels, and nothing else."""

import re
from dataclasses import dataclass
from typing import Self

_PATTERN = re.compile(
    r"^(?P<digest>[0-9a-f]{16})\.(?P<class_slug>[a-z0-9][a-z0-9_-]{0,63})\."
    r"(?P<seed>\d{1,20})\.(?P<index>\d{1,10})\.(?P<attempt>\d{1,4})\.(?P<truncation>\d{1,5})"
    r"(?:\.(?P<to_seed>\d{1,20})\.(?P<frames>\d{1,4}))?$",
    re.ASCII,
)
MAX_SEED = 2**64 - 1
TRUNCATION_STEPS = 10_000
"""Truncation is kept in steps of 1/10,000, so that the id spells it exactly."""
MIN_WALK_FRAMES = 2
MAX_WALK_FRAMES = 1_000


@dataclass(frozen=True, slots=True)
class Walk:
    """A way through the latents, from the first image of the id's seed to the first of `to_seed`.

    The id's index counts its frames. Raises ValueError unless it has 2 to 1,000 and `to_seed` is a uint64.
    """

    to_seed: int
    frames: int

    def __post_init__(self) -> None:
        if not 0 <= self.to_seed <= MAX_SEED or not MIN_WALK_FRAMES <= self.frames <= MAX_WALK_FRAMES:
            raise ValueError(
                f"to_seed {self.to_seed}, frames {self.frames} is no walk, so this is no image id"
            )


@dataclass(frozen=True, slots=True)
class ImageId:
    """What an image is: its id is spelled `digest.class.seed.index.attempt.truncation`.

    digest: the first 16 hex digits of the checkpoint's digest. seed: uint64. truncation: (0, 1]. walk: of a
    frame of a walk, whose id goes on `.to_seed.frames`; it has no other attempt than 0.
    """

    digest: str
    class_slug: str
    seed: int
    index: int
    attempt: int = 0
    truncation: float = 1.0
    walk: Walk | None = None

    def __str__(self) -> str:
        steps = round(self.truncation * TRUNCATION_STEPS)
        walk = f".{self.walk.to_seed}.{self.walk.frames}" if self.walk else ""
        return f"{self.digest[:16]}.{self.class_slug}.{self.seed}.{self.index}.{self.attempt}.{steps}{walk}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for a text that is no image id."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no image id")
        seed, steps = int(match["seed"]), int(match["truncation"])
        if seed > MAX_SEED or not 0 < steps <= TRUNCATION_STEPS:
            raise ValueError(f"{text!r} is no image id")
        index, attempt = int(match["index"]), int(match["attempt"])
        walk = Walk(int(match["to_seed"]), int(match["frames"])) if match["to_seed"] else None
        if walk and (walk.to_seed == seed or index >= walk.frames or attempt):
            raise ValueError(f"{text!r} is no image id")
        return cls(
            digest=match["digest"],
            class_slug=match["class_slug"],
            seed=seed,
            index=index,
            attempt=attempt,
            truncation=steps / TRUNCATION_STEPS,
            walk=walk,
        )
