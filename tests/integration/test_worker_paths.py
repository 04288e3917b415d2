"""What draws an image is recorded, and does not change what is seen."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from model_store.sampling import Pixels
from model_store.store import Checkpoint
from tests.worker_stack import Stack
from worker.contract import keys
from worker.contract.messages import ImageRow, JobSpec

pytestmark = pytest.mark.integration


def _images(stack: Stack, spec: JobSpec) -> list[Pixels]:
    images = []
    for chunk in range(spec.chunk_count):
        with tarfile.open(stack.results / keys.shard_path(spec.job_id, chunk)) as tar:
            files = [tar.extractfile(member) for member in tar]
            images += [np.asarray(Image.open(io.BytesIO(file.read()))) for file in files if file is not None]
    return images


def test_two_paths_draw_the_same_images_within_a_grey_level(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    fast = stack.submit(tiny_checkpoint, 6, job_id="job_fast")
    stack.work()
    eager = stack.submit(tiny_checkpoint, 6, job_id="job_eager")
    stack.work(generator="eager")

    assert {row.drawn_with.partition(" ")[0] for row in stack.rows(fast) if row.drawn_with} == {"openvino"}
    assert {row.drawn_with for row in stack.rows(eager)} == {"eager"}
    for one, other in zip(_images(stack, fast), _images(stack, eager), strict=True):
        assert np.abs(one.astype(np.int16) - other).max() <= 1
        assert one.std() > 1


def test_pixels_are_the_same_for_any_number_of_passes_at_once(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    jobs = []
    for threads in (1, 3, None):
        jobs.append(stack.submit(tiny_checkpoint, 9, job_id=f"job_{threads}", chunk_images=4))
        stack.work(threads=threads)

    first, *others = ([row.pixels_sha256 for row in stack.rows(job)] for job in jobs)

    assert len(first) == 9
    assert others == [first, first]


def test_a_row_from_before_paths_were_recorded_is_read(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 1)
    stack.work()
    (row,) = stack.rows(spec)

    old = row.model_dump_json(exclude={"drawn_with"})

    assert ImageRow.model_validate_json(old).drawn_with is None
