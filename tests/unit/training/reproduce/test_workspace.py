"""Images are drawn once, and a stop is obeyed while they are."""

import pytest

from model_store.generators.registry import Generator
from training.errors import StoppedError
from training.reproduce.workspace import Workspace

COUNT = 40
"""Several batches."""


def test_stop_ends_a_drawing_and_leaves_nothing_half_drawn(
    workspace: Workspace, tiny_generator: Generator
) -> None:
    told: list[int] = []
    workspace.tell = lambda _, done, __: told.append(done)
    workspace.stop = lambda: True
    with pytest.raises(StoppedError, match=f"stopped after [0-9]+ of {COUNT} images of a"):
        workspace.drawn(tiny_generator, "0" * 64, ["a", "b"], COUNT, 16)
    assert len(told) == 1

    workspace.stop = lambda: False
    images = workspace.drawn(tiny_generator, "0" * 64, ["a", "b"], COUNT, 16)

    assert {slug: len(drawn) for slug, drawn in images.items()} == {"a": COUNT, "b": COUNT}
    assert workspace.drawn(tiny_generator, "0" * 64, ["a", "b"], COUNT, 16) is images
