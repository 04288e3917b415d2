"""What was served, judged against what is kept of real images: a real worker's shards, the real extractor."""

import json
import time

import numpy as np
import numpy.typing as npt
import pytest
import torch
from redis import Redis

from masan.report_settings import ReportWorkerSettings
from masan.report_worker import ReportProcess
from masan.served_quality import MIN_IMAGES, ServedQuality
from model_store.image_id import ImageId
from model_store.quality.extractors import FeatureExtractor
from model_store.quality.projected_thumbnails import PROJECTIONS, ProjectedThumbnails
from model_store.quality.reference_set import (
    ExtractorInfo,
    ReferenceInfo,
    ReferenceSet,
    attach_reference_set,
)
from model_store.sampling import sample_images
from model_store.store import Checkpoint
from model_store.weights import load_generator
from service.metrics.served import served_families
from tests.checkpoints import CLASSES
from tests.worker_stack import Stack
from worker.contract import keys

pytestmark = pytest.mark.integration

SERVED = ("pro_b", "tiny@1")


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(0)


def _drawn_features(
    stack: Stack, checkpoint: Checkpoint, extractor: FeatureExtractor
) -> npt.NDArray[np.float32]:
    """Of the checkpoint's own pro_b images, of another seed: a generator that is as good as real."""
    generator = load_generator(stack.store, checkpoint, torch.device("cpu"))
    ids = [ImageId(checkpoint.digest, "pro_b", 1, index) for index in range(MIN_IMAGES)]
    pixels = sample_images(generator, checkpoint.digest, ids, [1] * len(ids), micro_batch=2)
    return extractor.features([image for batch in pixels for image in batch])


def _keep(stack: Stack, checkpoint: Checkpoint, extractor: FeatureExtractor, like_served: bool) -> None:
    """Attach a reference set whose pro_b features are as the served ones, or are others."""
    pro_b = _drawn_features(stack, checkpoint, extractor)
    if not like_served:
        pro_b = pro_b[:, ::-1].copy()
    count = len(pro_b)
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(4, PROJECTIONS))
    info = ExtractorInfo(name=extractor.name, sha256=extractor.sha256, preprocessing=extractor.preprocessing)
    reference = ReferenceSet(
        info=ReferenceInfo(
            classes=CLASSES, digest="b" * 64, resolution=16, deduplicated=True, extractors=(info,)
        ),
        labels=np.ones(count, np.int64),
        blocks=np.zeros(count, np.int64),
        features={extractor.name: pro_b},
        rgb=np.zeros((count, 3), np.float32),
        luma_histogram=rng.dirichlet(np.ones(256), count).astype(np.float32),
        has_bar=np.zeros(count, np.bool_),
        thumbnails=ProjectedThumbnails(
            mean=np.zeros(PROJECTIONS, np.float32),
            descriptors=(descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)).astype(np.float32),
        ),
        unseen_labels=np.array([1]),
        unseen_similarity=np.array([0.3], dtype=np.float32),
    )
    attach_reference_set(stack.store, checkpoint, reference)


def _look(stack: Stack) -> dict[tuple[str, str], float]:
    return ServedQuality(stack.redis, stack.store, str(stack.results), interval_s=60).look(time.time())


@pytest.mark.parametrize("like_served", [True, False])
def test_served_images_are_compared_with_the_real_ones_of_their_class(
    stack: Stack, tiny_checkpoint: Checkpoint, extractor: FeatureExtractor, like_served: bool
) -> None:
    _keep(stack, tiny_checkpoint, extractor, like_served)
    stack.submit(tiny_checkpoint, MIN_IMAGES, window=8)
    stack.work()

    found = _look(stack)

    assert (abs(found[SERVED]) < 0.02) is like_served
    row = json.loads(str(stack.redis.hget(keys.SERVED_QUALITY, "pro_b:tiny@1")))
    assert row["n"] == MIN_IMAGES and row["kid"] == found[SERVED]


def test_too_few_images_say_nothing(
    stack: Stack, tiny_checkpoint: Checkpoint, extractor: FeatureExtractor
) -> None:
    _keep(stack, tiny_checkpoint, extractor, like_served=True)
    stack.submit(tiny_checkpoint, MIN_IMAGES - 1, window=8)
    stack.work()

    assert _look(stack) == {}


def test_without_a_reference_set_nothing_is_told(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    stack.submit(tiny_checkpoint, MIN_IMAGES, window=8)
    stack.work()

    assert _look(stack) == {}
    assert not stack.redis.exists(keys.SERVED_QUALITY)


def test_the_report_process_looks_beside_its_reports(
    stack: Stack, tiny_checkpoint: Checkpoint, extractor: FeatureExtractor
) -> None:
    """One look is enough for a fleet: a second process finds the lock."""
    _keep(stack, tiny_checkpoint, extractor, like_served=True)
    stack.submit(tiny_checkpoint, MIN_IMAGES, window=8)
    stack.work()
    settings = ReportWorkerSettings(
        redis_url=stack.redis_url,
        model_store_url=stack.store.url,
        result_store_url=str(stack.results),
        served_quality_s=0.2,
    )
    process = ReportProcess(settings)
    assert process.served is not None

    with process.served.beside():
        deadline = time.monotonic() + 60
        while not stack.redis.hexists(keys.SERVED_QUALITY, "pro_b:tiny@1"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_without_a_result_store_nothing_is_looked_at(stack: Stack) -> None:
    settings = ReportWorkerSettings(redis_url=stack.redis_url, model_store_url=stack.store.url)

    assert ReportProcess(settings).served is None


def test_metrics_show_what_has_an_alias(redis: "Redis") -> None:
    row = json.dumps({"kid": 0.25, "kid_sd": 0.5, "n": 64, "at": 1000.0})
    redis.hset(keys.SERVED_QUALITY, mapping={"pro_b:tiny@1": row, "pro_b:tiny@0": row})

    families = {family.name: family for family in served_families(redis, {SERVED}, now=1060.0)}

    values = {name: [(s.labels, s.value) for s in family.samples] for name, family in families.items()}
    labels = {"class": "pro_b", "model_version": "tiny@1"}
    assert values == {
        "masan_class_served_kid": [(labels, 0.25)],
        "masan_class_served_kid_sd": [(labels, 0.5)],
        "masan_class_served_age_seconds": [(labels, 60.0)],
    }
