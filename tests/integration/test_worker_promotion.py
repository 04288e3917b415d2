"""What is promoted reaches a worker while it runs; what cannot be loaded leaves the old checkpoint warm."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.manifest import REFERENCE_FILE
from model_store.quality.reference_set import attach_reference_set
from model_store.store import Checkpoint
from tests.checkpoints import publish_tiny
from tests.references import make_reference
from tests.smears import draw_smear
from tests.worker_stack import Stack
from worker.contract import keys
from worker.contract.messages import JobStatus
from worker.default_model import LOOK_EVERY_S, DefaultModel
from worker.process import WorkerProcess

pytestmark = pytest.mark.integration


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def versions(stack: Stack) -> list[Checkpoint]:
    """`tiny@1`, in production, and `tiny@2`."""
    found = [publish_tiny(stack.store, version=str(version), seed=version) for version in (1, 2)]
    stack.store.promote("tiny", "1")
    return found


@pytest.fixture
def process(stack: Stack, clock: Clock, versions: list[Checkpoint]) -> Iterator[WorkerProcess]:
    """A worker that has loaded `tiny@1` and keeps one generator."""
    process = WorkerProcess(
        stack.settings(default_model="tiny@production", worker_name="one", cached_generators=1)
    )
    process.default_model = DefaultModel(
        process.store, process.cache, process.presence, "tiny@production", monotonic=clock
    )
    process.presence.start()
    process.default_model.load()
    yield process
    process.presence.stop()
    process.sampler.close()


def entry(stack: Stack) -> dict[str, Any]:
    """What the worker says of itself."""
    found: dict[str, Any] = json.loads(str(stack.redis.hget(keys.WORKERS, "one")))
    return found


def look(process: WorkerProcess, clock: Clock) -> None:
    clock.now += LOOK_EVERY_S
    process.default_model.follow()


def test_a_promoted_checkpoint_is_loaded_and_warmed(
    stack: Stack, process: WorkerProcess, clock: Clock, versions: list[Checkpoint]
) -> None:
    assert entry(stack)["version"] == "1"

    stack.store.promote("tiny", "2")
    clock.now += LOOK_EVERY_S / 2
    process.default_model.follow()
    assert entry(stack)["version"] == "1"  # not yet time to look
    look(process, clock)

    assert (entry(stack)["version"], entry(stack)["error"]) == ("2", None)
    assert entry(stack)["digest"] == versions[1].digest


def test_nothing_is_loaded_while_nothing_is_promoted(process: WorkerProcess, clock: Clock) -> None:
    for _ in range(3):
        look(process, clock)

    loads = process.metrics.registry.get_sample_value("masan_model_load_duration_seconds_count")
    assert loads == 1


def test_a_rollback_is_followed(
    stack: Stack, process: WorkerProcess, clock: Clock, versions: list[Checkpoint]
) -> None:
    stack.store.promote("tiny", "2")
    look(process, clock)
    stack.store.promote("tiny", "1")
    look(process, clock)

    assert entry(stack)["digest"] == versions[0].digest


def test_one_that_cannot_be_loaded_leaves_the_old_one_warm(
    stack: Stack, process: WorkerProcess, clock: Clock, versions: list[Checkpoint]
) -> None:
    weights = Path(stack.store.url) / versions[1].folder / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    stack.store.promote("tiny", "2")
    look(process, clock)

    assert (entry(stack)["version"], entry(stack)["digest"]) == ("1", versions[0].digest)
    assert "weights.safetensors" in entry(stack)["error"]
    loads = process.metrics.registry.get_sample_value("masan_model_load_duration_seconds_count")
    assert loads == 1

    weights.write_bytes(content)  # repaired
    look(process, clock)

    assert (entry(stack)["version"], entry(stack)["error"]) == ("2", None)


def test_a_rollback_from_a_broken_one_clears_the_error(
    stack: Stack, process: WorkerProcess, clock: Clock, versions: list[Checkpoint]
) -> None:
    (Path(stack.store.url) / versions[1].folder / "weights.safetensors").write_bytes(b"")
    stack.store.promote("tiny", "2")
    look(process, clock)
    assert entry(stack)["error"]

    stack.store.promote("tiny", "1")
    look(process, clock)

    assert (entry(stack)["version"], entry(stack)["error"]) == ("1", None)


def test_a_model_that_appears_later_is_found(stack: Stack, clock: Clock) -> None:
    process = WorkerProcess(stack.settings(default_model="tiny@production", worker_name="one"))
    process.default_model = DefaultModel(
        process.store, process.cache, process.presence, "late", monotonic=clock
    )
    process.presence.start()
    process.default_model.load()
    assert entry(stack)["digest"] is None
    assert "late" in entry(stack)["error"]

    checkpoint = publish_tiny(stack.store, "late")
    look(process, clock)

    assert (entry(stack)["digest"], entry(stack)["error"]) == (checkpoint.digest, None)
    process.presence.stop()
    process.sampler.close()


def test_jobs_keep_the_checkpoint_they_are_pinned_to(
    stack: Stack, process: WorkerProcess, clock: Clock, versions: list[Checkpoint]
) -> None:
    spec = stack.submit(versions[0], 16)
    process.maker.make(spec.chunk(0).model_dump(mode="json"))

    stack.store.promote("tiny", "2")
    look(process, clock)
    process.maker.make(spec.chunk(1).model_dump(mode="json"))

    rows = stack.rows(spec)
    assert stack.ledger.status(spec.job_id) is JobStatus.SUCCEEDED
    assert {row.checkpoint_digest for row in rows} == {versions[0].digest}
    undisturbed = stack.submit(versions[0], 16, job_id="job_undisturbed")
    stack.queue.empty()
    for chunk in undisturbed.chunks():
        process.maker.make(chunk.model_dump(mode="json"))
    assert [row.sha256 for row in stack.rows(undisturbed)] == [row.sha256 for row in rows]


def test_an_unusable_reference_set_keeps_no_model_from_being_loaded(
    stack: Stack,
    process: WorkerProcess,
    clock: Clock,
    versions: list[Checkpoint],
    caplog: pytest.LogCaptureFixture,
) -> None:
    luma = {"benign": [200.0] * 30, "pro_b": [200.0] * 30}
    smears = [draw_smear(np.random.default_rng(0), "Pre")]
    attached = attach_reference_set(stack.store, versions[1], make_reference(luma, smears))
    (Path(stack.store.url) / attached.folder / REFERENCE_FILE).write_bytes(b"damaged")

    stack.store.promote("tiny", "2")
    look(process, clock)

    assert (entry(stack)["version"], entry(stack)["error"]) == ("2", None)
    assert "reference set unusable" in caplog.text
