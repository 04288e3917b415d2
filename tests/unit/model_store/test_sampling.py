from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch

from model_store.generators.registry import Generator
from model_store.image_id import ImageId
from model_store.sampling import (
    MICRO_BATCH,
    Pixels,
    latents,
    make_reproducible,
    micro_batch_for,
    sample_images,
    to_pixels,
)
from tests.checkpoints import build_tiny, tiny_config

DIGEST = "ab" * 32
GOLDEN_LATENT = [
    -0.19655904173851013,
    -1.0595266819000244,
    -1.1841299533843994,
    0.12543362379074097,
    -0.3592308461666107,
]
"""Latent of index 3, seed 7, pro_b: if this changes, every image ever served becomes another one."""


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    threads = torch.get_num_threads()
    make_reproducible()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def real_generator() -> Generator:
    """The real network at full resolution, narrow."""
    return cast("Generator", build_tiny(tiny_config(resolution=256, base_channels=4)))


def _ids(count: int, **changes: Any) -> list[ImageId]:
    fields: dict[str, Any] = {"digest": DIGEST[:16], "class_slug": "pro_b", "seed": 7}
    return [ImageId(**fields | changes, index=index) for index in range(count)]


def _draw(generator: Generator, ids: list[ImageId], micro_batch: int = MICRO_BATCH["cpu"]) -> Pixels:
    batches = sample_images(generator, DIGEST, ids, [1] * len(ids), micro_batch=micro_batch)
    return np.concatenate(list(batches))


def test_latents_are_what_they_have_always_been() -> None:
    image_id = ImageId(DIGEST[:16], "pro_b", 7, 3)

    z = latents(image_id, DIGEST, 5)

    assert z.dtype == np.float32
    assert z.tolist() == GOLDEN_LATENT


def test_latents_are_standard_normal() -> None:
    z = np.concatenate([latents(image_id, DIGEST, 128) for image_id in _ids(2_000)])

    # 256,000 values: four standard errors of the mean, the variance and the fourth moment.
    assert abs(z.mean()) < 4 / 256_000**0.5
    assert abs(z.var() - 1) < 4 * (2 / 256_000) ** 0.5
    assert abs((z.astype(np.float64) ** 4).mean() - 3) < 4 * (96 / 256_000) ** 0.5
    assert abs(np.corrcoef(z[::2], z[1::2])[0, 1]) < 4 / 128_000**0.5


@pytest.mark.parametrize(
    "changed",
    [
        ImageId(DIGEST[:16], "benign", 7, 0),
        ImageId(DIGEST[:16], "pro_b", 8, 0),
        ImageId(DIGEST[:16], "pro_b", 7, 1),
        ImageId(DIGEST[:16], "pro_b", 7, 0, attempt=1),
    ],
)
def test_every_part_of_the_id_changes_the_latent(changed: ImageId) -> None:
    (image_id,) = _ids(1)

    assert not np.isclose(latents(image_id, DIGEST, 16), latents(changed, DIGEST, 16)).any()
    assert not np.isclose(latents(image_id, DIGEST, 16), latents(image_id, "cd" * 32, 16)).any()


def test_truncation_scales_the_latent() -> None:
    (full,), (half,) = _ids(1), _ids(1, truncation=0.5)

    assert np.allclose(latents(half, DIGEST, 16), 0.5 * latents(full, DIGEST, 16), rtol=1e-6)


def test_a_shorter_latent_is_the_beginning_of_a_longer_one() -> None:
    (image_id,) = _ids(1)

    assert np.array_equal(latents(image_id, DIGEST, 7), latents(image_id, DIGEST, 12)[:7])


def test_images_do_not_depend_on_n(real_generator: Generator) -> None:
    ids = _ids(7)
    everything = _draw(real_generator, ids)

    for n in (1, 2, 3, 6):
        assert np.array_equal(_draw(real_generator, ids[:n]), everything[:n])


def test_images_do_not_depend_on_order_or_neighbours(real_generator: Generator) -> None:
    ids = _ids(6)
    everything = _draw(real_generator, ids)
    order = [5, 0, 3, 1, 4, 2]

    assert np.array_equal(_draw(real_generator, [ids[i] for i in order]), everything[order])
    assert np.array_equal(_draw(real_generator, [ids[3], *_ids(3, seed=99)])[0], everything[3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_images_do_not_depend_on_n_or_order_on_a_gpu() -> None:
    network = build_tiny(tiny_config(resolution=256, base_channels=8)).to("cuda")
    generator, ids = cast("Generator", network), _ids(70)
    everything = _draw(generator, ids, MICRO_BATCH["cuda"])
    order = np.random.default_rng(0).permutation(70)

    shuffled = _draw(generator, [ids[i] for i in order], MICRO_BATCH["cuda"])

    assert np.array_equal(shuffled, everything[order])
    assert np.array_equal(_draw(generator, ids[:1], MICRO_BATCH["cuda"]), everything[:1])


def test_make_reproducible_takes_back_threads() -> None:
    torch.set_num_threads(2)

    make_reproducible()

    assert torch.get_num_threads() == 1


def test_images_differ_by_id_and_class(tiny_generator: Generator) -> None:
    ids = _ids(4)
    images = _draw(tiny_generator, ids)
    (other_class,) = sample_images(tiny_generator, DIGEST, ids[:1], [0], micro_batch=2)

    assert len({image.tobytes() for image in images}) == 4
    assert not np.array_equal(images[0], other_class[0])


def test_batches_have_the_promised_shape(tiny_generator: Generator) -> None:
    batches = list(sample_images(tiny_generator, DIGEST, _ids(5), [1] * 5, micro_batch=2))

    assert [batch.shape for batch in batches] == [(2, 16, 16, 3), (2, 16, 16, 3), (1, 16, 16, 3)]
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
    assert list(sample_images(tiny_generator, DIGEST, [], [], micro_batch=2)) == []


def test_quantisation_rounds_to_nearest_and_clamps() -> None:
    levels = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    image = levels.reshape(1, 1, 1, -1).expand(1, 3, 1, -1)

    assert to_pixels(image)[0, 0, :, 0].tolist() == [0, 0, 64, 128, 191, 255, 255]
    every_level = (torch.arange(256) / 127.5 - 1).reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    assert to_pixels(every_level)[0, 0, :, 2].tolist() == list(range(256))


def test_channels_come_last() -> None:
    image = torch.stack([torch.full((2, 4), level) for level in (-1.0, 0.0, 1.0)])[None]

    assert to_pixels(image)[0, 1, 3].tolist() == [0, 128, 255]


def test_an_image_that_is_not_finite_is_named() -> None:
    generator = build_tiny()
    with torch.no_grad():
        generator.get_parameter("to_rgb.weight").fill_(float("nan"))
    ids = _ids(2)

    with pytest.raises(FloatingPointError, match=str(ids[0])):
        _draw(cast("Generator", generator), ids)


def test_the_micro_batch_belongs_to_the_device_type() -> None:
    assert micro_batch_for(torch.device("cpu")) == MICRO_BATCH["cpu"]
    assert micro_batch_for(torch.device("cuda", 1)) == MICRO_BATCH["cuda"]
