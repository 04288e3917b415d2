"""Synthetic images for torch, read while they are being made and mixed with real ones."""

import os
import tarfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import IterableDataset, get_worker_info

from masan.client import Client
from masan.errors import ArchiveCorruptedError, DatasetFolderError, JobFailedError
from masan.job import Job, Shard, ShardList, id_of
from masan.mixing import Reader, mixed, real_images, seeded, shuffled, synthetic_count
from masan.shard_cache import DEFAULT_FOLDER, ShardCache, StoredImage, images_in, read_image

_POLL_S: Final = (0.2, 2.0)
"""First and longest pause between two looks for a shard that is not made yet."""


@dataclass(frozen=True, slots=True)
class _Synthetic:
    """An image of a shard in the cache."""

    path: Path
    image: StoredImage
    label: int


@dataclass(frozen=True, slots=True)
class _Jobs:
    """What is known of the jobs from the beginning: how many images they give, of which classes."""

    ids: tuple[str, ...]
    n: int
    classes: tuple[str, ...]
    are_pure: bool


class SyntheticDataset(IterableDataset[tuple[Any, int]]):
    """Images of one or several jobs as (transformed image, label), also while the jobs still run.

    An epoch has each synthetic image once; with `real`, each real image once and as many synthetic ones as
    `synthetic_share` demands, evenly spread, going round if there are too few. Labels count the class slugs
    in alphabetical order, as `ImageFolder` does. What an epoch holds and in which order depends on `seed`,
    the epoch and the number of ranks and workers alone: call `set_epoch` before each, as of a
    DistributedSampler. Ranks get equally many images each; up to `world_size - 1` of an epoch are left out.

    jobs: a job, its id, or several of the same classes or of one class each. Epoch 0 of jobs of one class
    each reads them side by side in the order they are made in, and so need not wait for their ends; every
    other epoch, and every epoch of a job of several classes, draws shards from anywhere.
    cache_dir: shards by digest; a finished job whose shards are all there needs no server.
    real: a folder of images per class slug, or (file, class slug) pairs; real_classes: folder -> slug where
    they differ.
    shuffled_shards: so many at a time are mixed image by image; each has 256 images at most.
    transform: takes a PIL image, RGB; default: float32 [3, H, W] in 0..1, of `size_px` if that is given.
    rank, world_size: default: torch.distributed's, else RANK and WORLD_SIZE of torchrun, else one rank.

    Raises ValueError, DatasetFolderError, and what `Client` raises; JobFailedError while reading if a job
    ends without its images.
    """

    def __init__(
        self,
        jobs: Job | str | Sequence[Job | str],
        *,
        url: str,
        api_key: str | None = None,
        cache_dir: Path | str = DEFAULT_FOLDER,
        real: Path | str | Sequence[tuple[Path | str, str]] | None = None,
        real_classes: Mapping[str, str] | None = None,
        synthetic_share: float = 0.5,
        transform: Callable[[Image.Image], Any] | None = None,
        size_px: int | None = None,
        seed: int = 0,
        shuffled_shards: int = 8,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__()
        if shuffled_shards < 1:
            raise ValueError(f"shuffled_shards: {shuffled_shards} is below 1")
        if not 0 < synthetic_share < 1:
            raise ValueError(f"synthetic_share: {synthetic_share} is not between 0 and 1")
        if real is not None and transform is None and size_px is None:
            raise ValueError(
                "real: give size_px or transform, so that real and synthetic images have one size"
            )
        if transform is not None and size_px is not None:
            raise ValueError("size_px: goes without transform, which decides the size itself")
        self._url, self._api_key = url, api_key
        self._client: tuple[int, Client] | None = None
        self._cache = ShardCache(cache_dir)
        self._listed: dict[str, ShardList] = {}
        given = [jobs] if isinstance(jobs, Job | str) else list(jobs)
        self._jobs = self._describe([id_of(job) for job in given])
        self.classes = self._jobs.classes
        self._real = None if real is None else self._labelled(real, dict(real_classes or {}))
        self._share = synthetic_share
        self._transform = transform or _ToTensor(size_px)
        self._seed = seed
        self._shuffled_shards = shuffled_shards
        default_rank, default_size = _distributed()
        self._rank = default_rank if rank is None else rank
        self._world_size = default_size if world_size is None else world_size
        Reader(self._rank, self._world_size)
        # Shared, so that workers that are kept between epochs see it change.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class slug -> label."""
        return {slug: index for index, slug in enumerate(self.classes)}

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        if epoch < 0:
            raise ValueError(f"epoch: {epoch} is below 0")
        self._epoch[0] = epoch

    def __len__(self) -> int:
        """Images of an epoch on this rank, known before any of them is made."""
        real = len(self._real or ()) // self._world_size
        return real + self._synthetic_total() // self._world_size

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        epoch = int(self._epoch)
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        reader = Reader(self._rank, self._world_size, worker, workers)
        synthetic: Iterator[tuple[Any, int]] = map(
            self._open_synthetic, reader.part_of(self._synthetic(epoch), self._synthetic_total())
        )
        if self._real is None:
            return synthetic
        order = shuffled(self._real, self._seed, epoch, 0)
        real = map(self._open_real, reader.part_of(iter(order), len(order)))
        return mixed(real, synthetic, self._share)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is spawned: connections stay with the process that opened them."""
        return self.__dict__ | {"_client": None}

    def _synthetic_total(self) -> int:
        if self._real is None:
            return self._jobs.n
        return synthetic_count(len(self._real), self._share)

    def _synthetic(self, epoch: int) -> Iterator[_Synthetic]:
        """All synthetic images of all readers, going round for ever: each of them once a round."""
        rounds = 0
        while True:
            shards = self._shards_of_round(epoch, rounds)
            mix = seeded(self._seed, epoch, rounds, 1)
            while window := list(islice(shards, self._shuffled_shards)):
                images = list(chain.from_iterable(map(self._images_of, window)))
                mix.shuffle(images)
                yield from images
            rounds += 1

    def _shards_of_round(self, epoch: int, rounds: int) -> Iterator[Shard]:
        """Every shard once; waits for those that are not made yet."""
        first_round = (epoch, rounds) == (0, 0)
        places = [
            (index, job_id) for job_id in self._jobs.ids for index in range(self._shards_of(job_id).total)
        ]
        if first_round and self._jobs.are_pure:
            places.sort(key=lambda place: place[0])  # the jobs side by side
        else:
            places = shuffled(places, self._seed, epoch, rounds, 2)
        return (self._wait_for(job_id, index) for index, job_id in places)

    def _images_of(self, shard: Shard) -> list[_Synthetic]:
        label = self.classes.index(shard.class_slug)
        path = self._cache.fetch(self._open_client(), shard)
        try:
            return [_Synthetic(path, image, label) for image in images_in(path)]
        except tarfile.TarError as error:
            raise ArchiveCorruptedError(str(path), f"not a whole tar ({error}); delete it") from error

    def _open_synthetic(self, sample: _Synthetic) -> tuple[Any, int]:
        with sample.path.open("rb") as file:
            content = read_image(file, sample.image)
        with _decoded(BytesIO(content), f"{sample.path}: {sample.image.name}") as image:
            return self._transform(image), sample.label

    def _open_real(self, sample: tuple[Path, int]) -> tuple[Any, int]:
        path, label = sample
        with path.open("rb") as file, _decoded(file, str(path)) as image:
            return self._transform(image), label

    def _labelled(
        self, real: Path | str | Sequence[tuple[Path | str, str]], names: dict[str, str]
    ) -> list[tuple[Path, int]]:
        """Raises DatasetFolderError."""
        if isinstance(real, Path | str):
            return real_images(Path(real), self.classes, names)
        labels = self.class_to_idx
        for path, slug in real:
            if slug not in labels:
                known = ", ".join(self.classes)
                raise DatasetFolderError(str(path), f"{slug!r} is none of the job's classes ({known})")
        if not real:
            raise DatasetFolderError("real", "no image is given")
        return [(Path(path), labels[slug]) for path, slug in real]

    def _describe(self, ids: list[str]) -> _Jobs:
        """Raises ValueError for no job, or one that is named twice."""
        if not ids or len(set(ids)) != len(ids):
            raise ValueError(f"jobs: {', '.join(ids) or 'none given'}; give one or several different ones")
        counts = [self._counts(job_id) for job_id in ids]
        classes = sorted({slug for of_job in counts for slug in of_job})
        return _Jobs(
            ids=tuple(ids),
            n=sum(sum(of_job.values()) for of_job in counts),
            classes=tuple(classes),
            are_pure=all(len(of_job) == 1 for of_job in counts),
        )

    def _counts(self, job_id: str) -> dict[str, int]:
        """Images of each class; from the cache alone, if the job was seen to its end."""
        listed = self._cache.recall(job_id)
        if listed is None:
            job = self._open_client().job(job_id)
            if job.is_final and job.status != "succeeded":
                raise JobFailedError(job.id, job.status, job.error)
            return job.classes
        self._listed[job_id] = listed
        counts: dict[str, int] = {}
        for shard in listed.shards:
            counts[shard.class_slug] = counts.get(shard.class_slug, 0) + shard.count
        return counts

    def _shards_of(self, job_id: str) -> ShardList:
        return self._listed[job_id] if job_id in self._listed else self._look(job_id)

    def _look(self, job_id: str) -> ShardList:
        listed = self._open_client().shard_list(job_id)
        self._listed[job_id] = listed
        if listed.status == "succeeded":
            self._cache.remember(job_id, listed)
        return listed

    def _wait_for(self, job_id: str, index: int) -> Shard:
        """Raises JobFailedError once it will not be made."""
        listed, pause_s = self._shards_of(job_id), _POLL_S[0]
        while True:
            for shard in listed.shards:
                if shard.index == index:
                    return shard
            if listed.is_final:
                job = self._open_client().job(job_id)
                raise JobFailedError(job.id, job.status, job.error)
            time.sleep(pause_s)
            pause_s = min(_POLL_S[1], 1.5 * pause_s)
            listed = self._look(job_id)

    def _open_client(self) -> Client:
        """This process's own: a connection must not be shared with the process that forked it."""
        pid = os.getpid()
        if self._client is None or self._client[0] != pid:
            self._client = (pid, Client(self._url, self._api_key))
            weakref.finalize(self, self._client[1].close)
        return self._client[1]


class _ToTensor:
    """RGB image -> float32 [3, H, W] in 0..1. size_px: side of the result; None: as it is."""

    def __init__(self, size_px: int | None) -> None:
        self._size_px = size_px

    def __call__(self, image: Image.Image) -> torch.Tensor:
        if self._size_px is not None and image.size != (self._size_px, self._size_px):
            image = image.resize((self._size_px, self._size_px), Image.Resampling.BICUBIC)
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = flat.view(image.height, image.width, 3)  # [H, W, 3]
        return pixels.permute(2, 0, 1).to(torch.float32) / 255  # [3, H, W]


def _decoded(file: Any, name: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DatasetFolderError(name, f"cannot be read as an image ({error})") from error


def _distributed() -> tuple[int, int]:
    """Rank and number of ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
