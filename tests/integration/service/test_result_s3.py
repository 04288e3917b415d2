"""Results in a bucket: what lies there as one file is fetched from there, the rest is streamed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from masan import Client
from masan.archive_digests import check_archive
from tests.integration.service.harness import Service
from tests.integration.service.test_s3 import endpoint, settings

pytestmark = pytest.mark.integration
__all__ = ["endpoint", "settings"]


@pytest.fixture
def outsider() -> Iterator[httpx.Client]:
    """Knows no key of ours and none of the store's."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


def test_shard_is_fetched_from_the_store(service: Service, outsider: httpx.Client) -> None:
    job_id = service.finished_job()
    shard = service.client.get(f"/jobs/{job_id}/shards").json()["shards"][0]

    sent = service.client.get(shard["url"])
    fetched = outsider.get(sent.headers["location"])

    assert (sent.status_code, sent.content) == (307, b"")
    assert "no-store" in sent.headers["cache-control"]
    assert hashlib.sha256(fetched.content).hexdigest() == shard["sha256"]
    assert fetched.headers["content-type"] == "application/x-tar"


def test_head_and_condition_of_a_shard_are_answered_here(service: Service) -> None:
    url = f"/jobs/{service.finished_job()}/shards/0"

    head = service.client.head(url)
    again = service.client.get(url, headers={"If-None-Match": head.headers["etag"]})

    assert (head.status_code, again.status_code) == (200, 304)


def test_parquet_is_made_in_the_store_and_fetched_from_there(
    service: Service, outsider: httpx.Client
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    url = f"/jobs/{service.finished_job(format='parquet')}/result"

    sent, head = service.client.get(url), service.client.head(url)
    fetched = outsider.get(sent.headers["location"])

    assert sent.status_code == 307
    assert f'"{hashlib.sha256(fetched.content).hexdigest()}"' == head.headers["etag"]
    assert parquet.read_table(pyarrow.BufferReader(fetched.content)).num_rows == 10


@pytest.mark.parametrize("name", ["zip", "tar", "npz"])
def test_other_archives_are_streamed(service: Service, name: str) -> None:
    url = f"/jobs/{service.finished_job(format=name)}/result"

    whole = service.client.get(url)

    assert (whole.status_code, len(whole.content)) == (200, int(whole.headers["content-length"]))
    assert service.client.get(url, headers={"Range": "bytes=100-199"}).content == whole.content[100:200]


@pytest.mark.parametrize("name", ["zip", "parquet"])
def test_the_client_follows_to_the_store_without_its_key(service: Service, tmp_path: Path, name: str) -> None:
    job_id = service.finished_job(format=name)
    with Client(str(service.client.base_url), api_key="x" * 20) as client:
        path = client.download(job_id, tmp_path / "archive")
        shard = next(client.shards(job_id))
        content = client.download_shard(shard, tmp_path / "shard.tar").read_bytes()

    check_archive(path)
    assert hashlib.sha256(content).hexdigest() == shard.sha256
