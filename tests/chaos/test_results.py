"""A result store that is full, and shards that are damaged after they were made."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.chaos.accounts import unaccounted_files, unaccounted_keys, unfinished
from tests.chaos.conftest import IMAGES, Record, Undisturbed
from tests.chaos.stack import (
    Process,
    ServiceProcess,
    Stack,
    digests,
    download,
    eventually,
    submit,
    wait_until_final,
    wait_until_succeeded,
)
from worker.contract import keys

DISK_BYTES = 24 * 1024 * 1024
"""Room for the job of `IMAGES` images, and half as much again."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of `DISK_BYTES`."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_stack(stack: Stack, small_disk: Path, tmp_path: Path) -> Iterator[Stack]:
    """A stack of its own whose results lie on the small disk; the other one's workers are gone meanwhile."""
    stack.crew(0)
    small = Stack(tmp_path / "stack", results=small_disk)
    yield small
    small.close()


def fill(folder: Path, leave_bytes: int) -> Path:
    """A file that takes all room but so much."""
    ballast = folder / ".ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast.write_bytes(b"\0" * (free - leave_bytes))
    return ballast


def test_disk_runs_full_in_the_middle_of_a_job(
    small_stack: Stack, small_disk: Path, undisturbed: Undisturbed, record: Record
) -> None:
    service = small_stack.start_service(MASAN_RESULT_RESERVE_BYTES="1000000")
    small_stack.start_worker()
    job_id = submit(service.http, IMAGES)
    eventually(lambda: small_stack.done(job_id))
    ballast = fill(small_disk, leave_bytes=100_000)
    failed = wait_until_final(service.http, job_id)
    half_written = [path for path in small_disk.rglob(".*") if path != ballast]
    refused = service.http.post("/generate", params={"class": "pro_b", "n": IMAGES})
    shards = service.http.get(f"/jobs/{job_id}/shards").raise_for_status().json()["shards"]

    ballast.unlink()
    freed_at = time.monotonic()
    retried = service.http.post(f"/jobs/{job_id}/retry")
    job = wait_until_succeeded(service.http, job_id)
    seconds = time.monotonic() - freed_at

    record(
        "Disk full in the middle of a job, then freed and the job retried: until it had succeeded", seconds
    )
    assert (failed["status"], failed["error"]["code"]) == ("failed", "store_full")
    assert [path.name for path in half_written if path.name != ".masan-owner"] == []
    assert refused.status_code == httpx.codes.INSUFFICIENT_STORAGE
    assert refused.json()["code"] == "store_full"
    assert sum(shard["count"] for shard in shards) == failed["progress"]["done"] > 0
    assert retried.status_code == httpx.codes.ACCEPTED, retried.text
    assert job["attempt"] == 2
    assert digests(download(service.http, job_id)) == undisturbed.digests
    eventually(lambda: not unfinished(small_stack.redis))
    assert unaccounted_keys(small_stack.redis) == []
    assert unaccounted_files(small_stack.redis, small_disk) == []


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def another_seed(file: Path) -> None:
    """What a checksum alone can tell: the rows are as long as they were and as easily read."""
    file.write_bytes(file.read_bytes().replace(b'"seed":"7"', b'"seed":"8"', 1))


@pytest.mark.parametrize("damage", [flip_a_bit, cut_in_half, Path.unlink])
@pytest.mark.parametrize("suffix", [".tar", ".jsonl"])
def test_damaged_shard_is_never_delivered(
    stack: Stack,
    service: ServiceProcess,
    undisturbed: Undisturbed,
    damage: Callable[[Path], None],
    suffix: str,
) -> None:
    """Neither whole nor from any byte on: the download breaks off before its end, or is refused."""
    victim = stack.results / undisturbed.job_id / f"00001{suffix}"
    whole = victim.read_bytes()
    middle = len(whole) // 2
    at = undisturbed.archive.index(whole[middle : middle + 64])
    damage(victim)
    try:
        for start in (0, at - 50_000, at - 20, at):
            got = until_cut(service.http, f"/jobs/{undisturbed.job_id}/result", start)
            assert got is None or len(got) < len(undisturbed.archive) - start, f"from byte {start} on"
    finally:
        victim.write_bytes(whole)
    assert until_cut(service.http, f"/jobs/{undisturbed.job_id}/result", 0) == undisturbed.archive


@pytest.mark.parametrize("damage", [flip_a_bit, another_seed])
def test_rows_damaged_before_the_archive_is_first_asked_for(
    stack: Stack, undisturbed: Undisturbed, damage: Callable[[Path], None]
) -> None:
    """By a service that has not seen them whole."""
    victim = stack.results / undisturbed.job_id / "00001.jsonl"
    whole = victim.read_bytes()
    damage(victim)
    fresh = stack.start_service()
    try:
        answer = fresh.http.get(f"/jobs/{undisturbed.job_id}/result")
        shards = fresh.http.get(f"/jobs/{undisturbed.job_id}/shards").json()["shards"]
        image = fresh.http.get(f"/jobs/{undisturbed.job_id}/images/{shards[0]['count']}")
    finally:
        victim.write_bytes(whole)
        stack.end(fresh)

    assert (answer.status_code, answer.json()["code"]) == (500, "result_lost")
    assert (image.status_code, image.json()["code"]) == (500, "result_lost")


def until_cut(http: httpx.Client, path: str, start: int) -> bytes | None:
    """What comes of the bytes from `start` on until the connection breaks, None for an error instead."""
    got = bytearray()
    with http.stream("GET", path, headers={"Range": f"bytes={start}-"}) as response:
        if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
            assert response.headers["Content-Type"] == "application/problem+json"
            return None
        assert response.status_code == httpx.codes.PARTIAL_CONTENT
        with suppress(httpx.TransportError):
            for block in response.iter_raw():
                got += block
    return bytes(got)


def test_images_of_a_damaged_job_come_again_from_its_seed(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    """What the answer advises: the same request makes the same images."""
    victim = stack.results / keys.shard_path(undisturbed.job_id, 0)
    whole = victim.read_bytes()
    flip_a_bit(victim)
    try:
        lost_at = time.monotonic()
        broken = until_cut(service.http, f"/jobs/{undisturbed.job_id}/result", 0)
        again = submit(service.http, IMAGES)
        wait_until_succeeded(service.http, again)
        seconds = time.monotonic() - lost_at
    finally:
        victim.write_bytes(whole)

    record("A shard was damaged: until the same images were made again by the same request", seconds)
    assert broken != undisturbed.archive
    assert digests(download(service.http, again)) == undisturbed.digests
