"""Evaluation draws the images that a job of the same seed would get."""

import numpy as np
import pytest

from model_store.generators.registry import Generator
from model_store.image_id import ImageId
from model_store.sampling import sample_images
from training.evaluation.drawing import chosen_device, draw_chosen, draw_images

DIGEST = "ab" * 32


def test_images_are_the_workers(tiny_generator: Generator) -> None:
    ids = [ImageId(digest=DIGEST[:16], class_slug="pro_b", seed=9, index=i, truncation=0.7) for i in (2, 0)]
    served = np.concatenate(list(sample_images(tiny_generator, DIGEST, ids, [1, 1], micro_batch=2)))

    drawn = draw_images(tiny_generator, DIGEST, "pro_b", 1, 3, seed=9, truncation=0.7)

    assert drawn.shape == (3, 16, 16, 3)
    assert np.array_equal(drawn[[2, 0]], served)


def test_progress_counts_images(tiny_generator: Generator) -> None:
    done: list[int] = []

    draw_images(tiny_generator, DIGEST, "benign", 0, 5, progress=done.append)

    assert done == sorted(done)
    assert done[-1] == 5


def test_chosen_images_are_those_of_the_whole_row(tiny_generator: Generator) -> None:
    row = draw_images(tiny_generator, DIGEST, "pro_b", 1, 4, seed=9)

    chosen = draw_chosen(tiny_generator, DIGEST, "pro_b", 1, [3, 0], seed=9)

    assert np.array_equal(chosen, row[[3, 0]])


@pytest.mark.parametrize("name", ["abacus", "cuda:99"])
def test_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{name}'"):
        chosen_device(name)
