"""`masan.SyntheticDataset` against a running service: what an epoch holds, for whom, and when."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from masan import JobFailedError, SyntheticDataset
from masan.errors import DatasetFolderError, ServerUnreachableError
from masan.processes import free_port
from tests.integration.service.harness import Service
from tests.meanwhile import meanwhile

pytestmark = pytest.mark.integration

Sample = tuple[bytes, int]


def fingerprint(image: Image.Image) -> bytes:
    return image.tobytes()


def unchanged(sample: Any) -> Any:
    """In place of a conversion that would make a list of it."""
    return sample


def mixed_job(service: Service, pro_b: int = 20, benign: int = 12) -> str:
    response = service.client.post("/generate", json={"mix": {"pro_b": pro_b, "benign": benign}})
    return str(response.json()["id"])


@pytest.fixture
def job(service: Service) -> str:
    """A finished job of 20 pro_b and 12 benign images."""
    job_id = mixed_job(service)
    service.finish(job_id)
    return job_id


@pytest.fixture
def url(service: Service) -> str:
    return str(service.client.base_url).rstrip("/")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Five real images of each class, of one colour each."""
    for index, name in enumerate(("benign", "Pro")):
        folder = tmp_path / "real" / name
        folder.mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (16, 16), (index * 100 + number, 1, 2)).save(folder / f"{number}.png")
    return tmp_path / "real"


def test_an_epoch_has_every_image_once_with_its_label(job: str, url: str, tmp_path: Path) -> None:
    dataset = SyntheticDataset(job, url=url, cache_dir=tmp_path / "cache")

    samples = list(dataset)

    assert dataset.class_to_idx == {"benign": 0, "pro_b": 1}
    assert len(dataset) == len(samples) == 32
    assert Counter(label for _, label in samples) == {0: 12, 1: 20}
    image = samples[0][0]
    assert (image.shape, image.dtype) == ((3, 16, 16), torch.float32)
    assert 0 <= image.min() < image.max() <= 1
    assert len({image.numpy().tobytes() for image, _ in samples}) == 32


def test_order_depends_on_seed_and_epoch_alone(job: str, url: str, tmp_path: Path) -> None:
    def order(cache: str, seed: int, epoch: int) -> list[Sample]:
        dataset = SyntheticDataset(job, url=url, cache_dir=tmp_path / cache, transform=fingerprint, seed=seed)
        dataset.set_epoch(epoch)
        return list(dataset)

    first = order("a", 0, 1)

    assert order("b", 0, 1) == first
    assert sorted(order("a", 0, 2)) == sorted(first)
    assert order("a", 0, 2) != first
    assert order("a", 1, 1) != first


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_share_an_epoch(job: str, url: str, tmp_path: Path, workers: int) -> None:
    seen: list[Sample] = []
    for rank in range(3):
        dataset = SyntheticDataset(
            job, url=url, cache_dir=tmp_path / "cache", transform=fingerprint, rank=rank, world_size=3
        )
        loader = DataLoader(dataset, batch_size=None, collate_fn=unchanged, num_workers=workers)
        of_rank = list(loader)
        assert len(of_rank) == len(dataset) == 10  # of 32: all ranks have equally many
        seen += of_rank

    assert len(set(seen)) == 30


def test_workers_that_are_kept_see_the_next_epoch(job: str, url: str, tmp_path: Path) -> None:
    dataset = SyntheticDataset(job, url=url, cache_dir=tmp_path / "cache", transform=fingerprint)
    loader = DataLoader(
        dataset, batch_size=None, collate_fn=unchanged, num_workers=1, persistent_workers=True
    )

    dataset.set_epoch(1)
    first = list(loader)
    dataset.set_epoch(2)
    second = list(loader)

    dataset.set_epoch(1)
    assert first == list(dataset)
    assert second != first
    assert sorted(second) == sorted(first)


def test_real_images_are_mixed_in_at_a_fixed_ratio(job: str, url: str, real: Path, tmp_path: Path) -> None:
    dataset = SyntheticDataset(
        job,
        url=url,
        cache_dir=tmp_path / "cache",
        real=real,
        real_classes={"Pro": "pro_b"},
        synthetic_share=0.75,
        transform=fingerprint,
    )
    drawn = {Image.new("RGB", (16, 16), (i * 100 + k, 1, 2)).tobytes(): i for i in (0, 1) for k in range(5)}

    samples = list(dataset)

    real_samples = [(content, label) for content, label in samples if content in drawn]
    assert len(samples) == len(dataset) == 40
    assert sorted(real_samples) == sorted(drawn.items())
    assert len({content for content, _ in samples}) == 40
    for start in range(0, 40, 8):
        assert sum(content in drawn for content, _ in samples[start : start + 8]) == 2


def test_too_few_synthetic_images_go_round(service: Service, url: str, real: Path, tmp_path: Path) -> None:
    job = mixed_job(service, pro_b=2, benign=2)
    service.finish(job)
    dataset = SyntheticDataset(
        job,
        url=url,
        cache_dir=tmp_path,
        real=real,
        real_classes={"Pro": "pro_b"},
        synthetic_share=0.5,
        transform=fingerprint,
    )

    counts = Counter(content for content, _ in dataset)

    assert len(dataset) == 20
    assert sorted(counts.values()) == [1] * 10 + [2, 2, 3, 3]


def test_shards_are_read_while_the_jobs_run(service: Service, url: str, tmp_path: Path) -> None:
    jobs = [str(service.submit(**{"class": slug, "n": 40, "seed": 3})["id"]) for slug in ("benign", "pro_b")]
    for job_id in jobs:
        service.make_chunk(service.spec(job_id).chunk(0))
    chunk = service.spec(jobs[0]).chunk(0).count
    dataset = SyntheticDataset(jobs, url=url, cache_dir=tmp_path, transform=fingerprint, shuffled_shards=2)
    samples = iter(dataset)

    first = [next(samples) for _ in range(2 * chunk)]
    assert Counter(label for _, label in first) == {0: chunk, 1: chunk}
    with meanwhile(lambda: list(map(service.finish, jobs)), after_s=0.3):
        rest = list(samples)

    assert len(set(first + rest)) == len(dataset) == 80


def test_a_finished_job_is_read_without_its_server(
    service: Service, job: str, url: str, tmp_path: Path
) -> None:
    online = SyntheticDataset(job, url=url, cache_dir=tmp_path / "cache", transform=fingerprint)
    seen = list(online)

    nowhere = f"http://127.0.0.1:{free_port()}"
    offline = SyntheticDataset(job, url=nowhere, cache_dir=tmp_path / "cache", transform=fingerprint)

    assert list(offline) == seen
    with pytest.raises(ServerUnreachableError):
        SyntheticDataset(job, url=nowhere, cache_dir=tmp_path / "empty")


def test_a_shard_that_was_cut_is_fetched_again(job: str, url: str, tmp_path: Path) -> None:
    dataset = SyntheticDataset(job, url=url, cache_dir=tmp_path, transform=fingerprint)
    seen = list(dataset)
    for path in tmp_path.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:-600])

    assert list(dataset) == seen


def test_a_job_that_is_canceled_ends_the_reading(service: Service, url: str, tmp_path: Path) -> None:
    job_id = str(service.submit(n=40)["id"])
    dataset = SyntheticDataset(job_id, url=url, cache_dir=tmp_path)
    samples = iter(dataset)

    with (
        meanwhile(lambda: service.client.post(f"/jobs/{job_id}/cancel"), after_s=0.3),
        pytest.raises(JobFailedError, match="canceled"),
    ):
        next(samples)


def test_what_cannot_be_mixed_is_said(job: str, url: str, real: Path, tmp_path: Path) -> None:
    def dataset(**options: object) -> None:
        SyntheticDataset(job, url=url, cache_dir=tmp_path, **options)  # type: ignore[arg-type]

    with pytest.raises(DatasetFolderError, match=r"folder Pro: none of the job's classes .benign, pro_b"):
        dataset(real=real, size_px=16)
    with pytest.raises(DatasetFolderError, match="there is no such folder"):
        dataset(real=real / "nowhere", size_px=16)
    with pytest.raises(ValueError, match="give size_px or transform"):
        dataset(real=real)
    with pytest.raises(ValueError, match=r"synthetic_share: 1\.5"):
        dataset(synthetic_share=1.5)
    with pytest.raises(ValueError, match="rank: 3"):
        dataset(rank=3, world_size=2)
    (real / "benign" / "0.png").write_bytes(b"no image")
    broken = SyntheticDataset(
        job, url=url, cache_dir=tmp_path, real=real, real_classes={"Pro": "pro_b"}, size_px=16
    )
    with pytest.raises(DatasetFolderError, match=r"0\.png: cannot be read as an image"):
        list(broken)
