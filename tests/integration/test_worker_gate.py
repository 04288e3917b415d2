"""The gate within a real worker: what it refuses is drawn again, the same whoever makes the chunks."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_store.image_id import ImageId
from model_store.manifest import REFERENCE_FILE
from model_store.prepared.prepare import prepare_generator
from model_store.quality.luma import mean_luma
from model_store.quality.reference_set import attach_reference_set
from model_store.sampling import (
    Pixels,
    make_reproducible,
    micro_batch_for,
    sample_images,
    sample_micro_batch,
)
from model_store.store import Checkpoint, ModelStore
from model_store.weights import load_generator
from tests.references import make_reference
from tests.smears import draw_smear
from tests.worker_stack import Stack
from worker import sampler
from worker.contract import keys
from worker.contract.messages import (
    ChunkResult,
    ClassCount,
    FailureCode,
    GateLevel,
    ImageEncoding,
    ImageRow,
    JobSpec,
    JobStatus,
    RejectionReason,
)
from worker.gate import MAX_ATTEMPTS

pytestmark = pytest.mark.integration

N = 26
STRICT = GateLevel.STRICT


def _drawn(store: ModelStore, checkpoint: Checkpoint, count: int) -> list[Pixels]:
    """First attempts of the job's images, as they are without a gate."""
    make_reproducible()
    device = torch.device("cpu")
    generator = prepare_generator(load_generator(store, checkpoint, device), device, passes=1).generator
    ids = [ImageId(checkpoint.digest[:16], "pro_b", 7, index) for index in range(count)]
    batches = sample_images(
        generator, checkpoint.digest, ids, [1] * count, micro_batch=micro_batch_for(device)
    )
    return [image for batch in batches for image in batch]


@pytest.fixture
def first_attempts(model_store: ModelStore, tiny_checkpoint: Checkpoint) -> list[Pixels]:
    return _drawn(model_store, tiny_checkpoint, N)


@pytest.fixture
def judged(model_store: ModelStore, tiny_checkpoint: Checkpoint, first_attempts: list[Pixels]) -> Checkpoint:
    """A checkpoint whose real images were brighter than many that it draws, one of which is a copy."""
    luma = np.array([mean_luma(image) for image in first_attempts])
    usual = np.linspace(np.quantile(luma, 0.35), luma.max() + 5, 200)
    brightest = first_attempts[int(luma.argmax())]
    smears = [draw_smear(np.random.default_rng(seed), "Pre") for seed in range(4)]
    real = make_reference({"benign": usual.tolist(), "pro_b": usual.tolist()}, [*smears, brightest])
    return attach_reference_set(model_store, tiny_checkpoint, real)


def _results(stack: Stack, spec: JobSpec) -> list[ChunkResult]:
    return list(stack.ledger.done_chunks(spec.job_id).values())


def _images(stack: Stack, spec: JobSpec) -> list[dict[str, Any]]:
    """All that the rows say but for where an image lies in its shard."""
    return [row.model_dump(exclude={"offset"}) for row in stack.rows(spec)]


def _rejections(stack: Stack, spec: JobSpec) -> Counter[RejectionReason]:
    total: Counter[RejectionReason] = Counter()
    for result in _results(stack, spec):
        total.update(result.rejections)
    return total


def test_what_is_refused_is_the_next_attempt_of_its_index(
    stack: Stack, judged: Checkpoint, first_attempts: list[Pixels]
) -> None:
    spec = stack.submit(judged, N, gate=STRICT)

    stack.work()

    rows = stack.rows(spec)
    assert [row.index for row in rows] == list(range(N))
    assert [row.image_id.split(".")[4] for row in rows] == [str(row.attempt) for row in rows]
    again = [row for row in rows if row.attempt]
    assert N * 0.2 < len(again) < N * 0.7
    rejections = _rejections(stack, spec)
    assert rejections.total() == sum(row.attempt for row in rows)
    assert set(rejections) >= {RejectionReason.LUMA, RejectionReason.MEMORIZED}
    assert sum(result.rejected for result in _results(stack, spec)) == rejections.total()
    counted = stack.redis.hget(keys.COUNTERS, "rejected:pro_b:luma")
    assert counted == str(rejections[RejectionReason.LUMA])
    darkest = min(mean_luma(image) for image in first_attempts)
    assert all(row.gate["luma"] > darkest for row in rows)
    assert all(set(row.gate) == {"luma", "luma_sd", "nearest", "scale_bar"} for row in rows)


def test_the_images_are_the_same_for_any_chunk_size_and_worker(stack: Stack, judged: Checkpoint) -> None:
    shapes: list[tuple[int, dict[str, int]]] = [
        (N, {}),
        (1, {"threads": 1}),
        (7, {"threads": 3, "encode_threads": 2}),
    ]
    found = []
    for chunk_images, threads in shapes:
        spec = stack.submit(judged, N, job_id=f"job_{chunk_images}", chunk_images=chunk_images, gate=STRICT)
        stack.work(**threads)
        found.append((_images(stack, spec), _rejections(stack, spec)))

    assert len({row["sha256"] for row in found[0][0]}) == N
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_a_part_of_a_job_has_the_images_of_the_whole(stack: Stack, judged: Checkpoint) -> None:
    whole = stack.submit(judged, N, gate=STRICT)
    part = ClassCount(class_slug="pro_b", class_index=1, count=5, start=11)
    later = stack.submit(judged, 5, job_id="job_part", parts=(part,), gate=STRICT)

    stack.work()

    assert _images(stack, later) == _images(stack, whole)[11:16]


def test_an_image_drawn_again_from_its_id_is_the_same(stack: Stack, judged: Checkpoint) -> None:
    spec = stack.submit(judged, N, gate=STRICT)
    stack.work()
    row = max(stack.rows(spec), key=lambda row: row.attempt)
    assert row.attempt > 0

    part = ClassCount(class_slug="pro_b", class_index=1, count=1, start=row.index, attempt=row.attempt)
    again = stack.submit(judged, 1, job_id="job_again", parts=(part,))
    stack.work()

    (redrawn,) = stack.rows(again)
    assert (redrawn.image_id, redrawn.sha256) == (row.image_id, row.sha256)
    assert redrawn.gate == {}


def test_each_level_refuses_what_it_should(stack: Stack, judged: Checkpoint) -> None:
    specs = {level: stack.submit(judged, N, job_id=f"job_{level}", gate=level) for level in GateLevel}

    stack.work()

    refused = {level: _rejections(stack, spec).total() for level, spec in specs.items()}
    assert refused[GateLevel.OFF] == 0
    assert refused[GateLevel.OFF] < refused[GateLevel.DEFAULT] < refused[GateLevel.STRICT]


def test_without_a_reference_set_images_are_judged_by_themselves(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    spec = stack.submit(tiny_checkpoint, 8, gate=GateLevel.DEFAULT)

    stack.work()

    assert [set(row.gate) for row in stack.rows(spec)] == [{"luma_sd", "scale_bar"}] * 8


def test_an_image_that_is_never_good_enough_fails_the_job_at_once(
    stack: Stack, model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    smears = [draw_smear(np.random.default_rng(0), "Pre")]
    dark = np.linspace(1, 2, 50).tolist()
    checkpoint = attach_reference_set(
        model_store, tiny_checkpoint, make_reference({"benign": dark, "pro_b": dark}, smears)
    )
    spec = stack.submit(checkpoint, 8, gate=STRICT)

    stack.work()

    error = stack.error(spec)
    assert stack.ledger.status(spec.job_id) is JobStatus.FAILED
    assert error["code"] == FailureCode.GATE_EXHAUSTED
    assert error["message"].startswith("pro_b image ")
    assert f"all {MAX_ATTEMPTS} attempts (luma " in error["message"]
    assert stack.redis.hget(keys.COUNTERS, "chunk_retries:exception") is None
    assert not stack.results.exists()


def test_an_image_that_is_not_finite_is_drawn_again(
    stack: Stack, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sick(
        generator: Any, digest: str, ids: list[ImageId], labels: list[int], *, micro_batch: int
    ) -> tuple[Pixels, list[bool]]:
        """As a network that overflows for every third latent."""
        pixels, _ = sample_micro_batch(generator, digest, ids, labels, micro_batch=micro_batch)
        return pixels, [image_id.index % 3 != 0 or image_id.attempt > 0 for image_id in ids]

    monkeypatch.setattr(sampler, "sample_micro_batch", sick)
    gated = stack.submit(tiny_checkpoint, 8, gate=GateLevel.DEFAULT)
    plain = stack.submit(tiny_checkpoint, 8, job_id="job_plain")

    stack.work()

    attempts = [row.attempt for row in stack.rows(gated)]
    assert all(attempts[index] > 0 for index in (0, 3, 6))
    assert _rejections(stack, gated)[RejectionReason.NON_FINITE] == 3
    assert _rejections(stack, gated).total() == sum(attempts)
    assert stack.error(plain)["code"] == FailureCode.NON_FINITE_IMAGE


def test_a_reference_set_that_cannot_be_read_does_not_pass_for_none(
    stack: Stack, judged: Checkpoint, model_store: ModelStore
) -> None:
    (Path(model_store.url) / judged.folder / REFERENCE_FILE).write_bytes(b"damaged")
    gated = stack.submit(judged, 8, gate=GateLevel.DEFAULT)
    plain = stack.submit(judged, 8, job_id="job_plain")

    stack.work()

    assert stack.error(gated)["code"] == FailureCode.WEIGHTS_CORRUPTED
    assert REFERENCE_FILE in stack.error(gated)["message"]
    assert stack.ledger.status(plain.job_id) is JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    "encoding",
    [
        ImageEncoding(format="webp"),
        ImageEncoding(format="webp", quality=80),
        ImageEncoding(format="jpeg", quality=95),
    ],
    ids=lambda encoding: f"{encoding.format}-{encoding.quality}",
)
def test_another_encoding_holds_the_same_pixels(
    stack: Stack, tiny_checkpoint: Checkpoint, encoding: ImageEncoding
) -> None:
    plain = stack.submit(tiny_checkpoint, 5, job_id="job_png")
    spec = stack.submit(tiny_checkpoint, 5, encoding=encoding)

    stack.work()

    rows: list[ImageRow] = stack.rows(spec)
    assert [row.pixels_sha256 for row in rows] == [row.pixels_sha256 for row in stack.rows(plain)]
    assert {row.quality for row in rows} == {encoding.quality}
    assert [row.file for row in rows] == [f"pro_b/{index:06d}{encoding.suffix}" for index in range(5)]
