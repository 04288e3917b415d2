from itertools import pairwise

import numpy as np
import pytest

from model_store.image_id import ImageId, Walk
from model_store.sampling import latents
from model_store.walk import walk_ends

DIGEST = "0123456789abcdef" * 4
FRAMES = 9


def frame(index: int, frames: int = FRAMES) -> ImageId:
    return ImageId(DIGEST[:16], "pro_b", 7, index, truncation=0.5, walk=Walk(8, frames))


def test_a_walk_begins_and_ends_at_ordinary_images() -> None:
    start, end = walk_ends(frame(3), Walk(8, FRAMES))

    assert (str(start), str(end)) == (f"{DIGEST[:16]}.pro_b.7.0.0.5000", f"{DIGEST[:16]}.pro_b.8.0.0.5000")
    assert np.array_equal(latents(frame(0), DIGEST, 64), latents(start, DIGEST, 64))
    assert np.array_equal(latents(frame(FRAMES - 1), DIGEST, 64), latents(end, DIGEST, 64))


def test_a_frame_between_is_worked_out_by_hand() -> None:
    start, end = (latents(each, DIGEST, 4) for each in walk_ends(frame(4), Walk(8, FRAMES)))

    assert latents(frame(4), DIGEST, 4) == pytest.approx((start + end) / 2**0.5, abs=1e-6)


def test_frames_keep_the_variance_that_images_have() -> None:
    for index in range(FRAMES):
        assert latents(frame(index), DIGEST, 20_000).std() == pytest.approx(0.5, rel=0.02)


def test_frames_differ_and_neighbours_least() -> None:
    drawn = [latents(frame(index), DIGEST, 256) for index in range(FRAMES)]

    steps = [np.linalg.norm(one - other) for one, other in pairwise(drawn)]
    assert min(steps) > 0
    assert max(steps) < np.linalg.norm(drawn[0] - drawn[-1]) / 3


def test_a_frame_is_where_it_is_in_a_walk_of_more_frames() -> None:
    assert np.array_equal(latents(frame(2, 5), DIGEST, 64), latents(frame(4, 9), DIGEST, 64))
