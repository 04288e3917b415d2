"""A reference set is read back as it was made, ships with a checkpoint, and names what is wrong with it."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from model_store.errors import WeightsCorruptedError
from model_store.manifest import REFERENCE_FILE
from model_store.quality.projected_thumbnails import PROJECTIONS, ProjectedThumbnails
from model_store.quality.reference_set import (
    ExtractorInfo,
    ReferenceInfo,
    ReferenceSet,
    ReferenceSetAbsentError,
    ReferenceSetInvalidError,
    attach_reference_set,
    load_reference_set,
)
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import CLASSES

N, SEEN, FEATURES = 40, 32, 24


@pytest.fixture(scope="module")
def made() -> ReferenceSet:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(SEEN, PROJECTIONS))
    histogram = rng.dirichlet(np.full(256, 0.3), N)
    extractor = ExtractorInfo(name="efficientnet-lite0", sha256="a" * 64, preprocessing="none")
    return ReferenceSet(
        info=ReferenceInfo(
            classes=CLASSES, digest="b" * 64, resolution=16, deduplicated=True, extractors=(extractor,)
        ),
        labels=np.arange(N) % 2,
        blocks=np.arange(N) * 5 // N,
        features={extractor.name: rng.gamma(2, 1, (N, FEATURES)).astype(np.float32)},
        rgb=rng.uniform(0, 255, (N, 3)).astype(np.float32),
        luma_histogram=histogram.astype(np.float32),
        has_bar=np.arange(N) == 3,
        thumbnails=ProjectedThumbnails(
            mean=rng.normal(0, 0.01, PROJECTIONS).astype(np.float32),
            descriptors=(descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)).astype(np.float32),
        ),
        unseen_labels=np.array([0, 1, 1]),
        unseen_similarity=np.array([0.3, 0.2, 0.4], dtype=np.float32),
    )


def test_what_is_read_is_what_was_made(made: ReferenceSet) -> None:
    again = ReferenceSet.decode(made.encode(), "test")

    assert again.info == made.info
    for name in ("labels", "blocks", "rgb", "has_bar", "unseen_labels", "unseen_similarity"):
        assert np.array_equal(getattr(again, name), getattr(made, name)), name
    (features,) = made.features.values()
    assert again.features["efficientnet-lite0"] == pytest.approx(features, abs=0.35)
    assert again.luma_histogram.sum(axis=1) == pytest.approx(1)
    assert np.abs(np.cumsum(again.luma_histogram - made.luma_histogram, axis=1)).max() < 0.1
    assert np.array_equal(again.thumbnails.mean, made.thumbnails.mean)
    alike = np.einsum("nf,nf->n", again.thumbnails.descriptors, made.thumbnails.descriptors)
    assert alike.min() > 0.98


def test_it_ships_with_a_checkpoint(
    model_store: ModelStore, tiny_checkpoint: Checkpoint, made: ReferenceSet
) -> None:
    attached = attach_reference_set(model_store, tiny_checkpoint, made)

    entry = attached.manifest.reports[-1]
    assert (entry.path, entry.size_bytes) == (REFERENCE_FILE, len(made.encode()))
    assert attached.digest == tiny_checkpoint.digest
    loaded = load_reference_set(model_store, model_store.resolve("tiny@1"))
    assert loaded.info == made.info


def test_a_checkpoint_without_one_says_how_to_get_it(
    model_store: ModelStore, tiny_checkpoint: Checkpoint
) -> None:
    with pytest.raises(ReferenceSetAbsentError, match="masan reference build --data DIR --model tiny@1"):
        load_reference_set(model_store, tiny_checkpoint)


def test_it_is_never_replaced(
    model_store: ModelStore, tiny_checkpoint: Checkpoint, made: ReferenceSet
) -> None:
    attach_reference_set(model_store, tiny_checkpoint, made)

    with pytest.raises(ReferenceSetInvalidError, match="tiny@1: is published already"):
        attach_reference_set(model_store, tiny_checkpoint, made)


def test_one_of_other_classes_is_refused(
    model_store: ModelStore, tiny_checkpoint: Checkpoint, made: ReferenceSet
) -> None:
    other = replace(made, info=made.info.model_copy(update={"classes": ("benign", "pre_b")}))

    with pytest.raises(
        ReferenceSetInvalidError, match="is of benign, pre_b; the checkpoint has benign, pro_b"
    ):
        attach_reference_set(model_store, tiny_checkpoint, other)


def test_changed_bytes_are_not_read(
    model_store: ModelStore, tiny_checkpoint: Checkpoint, made: ReferenceSet
) -> None:
    attached = attach_reference_set(model_store, tiny_checkpoint, made)
    model_store._files.replace(f"{attached.folder}/{REFERENCE_FILE}", b"x" + made.encode()[1:])

    with pytest.raises(WeightsCorruptedError, match="sha256 is"):
        load_reference_set(model_store, attached)


def changed(made: ReferenceSet, **parts: object) -> bytes:
    """The file with some tensors replaced, and without those that are None."""
    content = made.encode()
    tensors = {**load(content), **parts}
    return save(
        {name: part for name, part in tensors.items() if isinstance(part, np.ndarray)},
        {"masan_reference_set": made.info.model_dump_json()},
    )


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"labels": None}, "labels is missing"),
        ({"blocks": np.zeros(3, np.uint8)}, "blocks has 3 rows for 40 labels"),
        ({"labels": np.full(N, 2, np.uint8)}, "label 2 has no class"),
        ({"features.efficientnet-lite0.step": None}, "features.efficientnet-lite0.step is missing"),
        ({"thumbnails.mean": np.zeros(5, np.float32)}, "must have 512 projections"),
        ({"unseen_labels": np.zeros(1, np.uint8)}, "differ in length"),
    ],
)
def test_parts_that_do_not_fit_are_named(made: ReferenceSet, parts: dict[str, object], reason: str) -> None:
    with pytest.raises(ReferenceSetInvalidError, match=f"reference set a.bin: .*{reason}"):
        ReferenceSet.decode(changed(made, **parts), "a.bin")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no such thing", "not a safetensors file"),
        (save({"labels": np.zeros(2, np.uint8)}), "masan_reference_set is missing"),
        (
            save({"labels": np.zeros(2, np.uint8)}, {"masan_reference_set": '{"format_version": 9}'}),
            "format_version",
        ),
    ],
)
def test_other_files_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ReferenceSetInvalidError, match=reason):
        ReferenceSet.decode(content, "a.bin")
