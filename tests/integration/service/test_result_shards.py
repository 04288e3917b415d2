"""GET /jobs/{id}/shards: what is made can be had while the rest is being made."""

import hashlib
import io
import tarfile
from base64 import b64encode

import pytest

from tests.integration.service.harness import Service

pytestmark = pytest.mark.integration


def half_done(service: Service, n: int = 40) -> str:
    """Id of a running job of several chunks; the first and the third are made."""
    job_id = str(service.submit(n=n, seed=7)["id"])
    for chunk_index in (0, 2):
        service.make_chunk(service.spec(job_id).chunk(chunk_index))
    return job_id


def test_running_job_lists_what_is_made(service: Service) -> None:
    job_id = half_done(service)

    body = service.client.get(f"/jobs/{job_id}/shards").json()

    assert (body["status"], body["total"]) == ("running", service.spec(job_id).chunk_count)
    assert [shard["index"] for shard in body["shards"]] == [0, 2]
    for shard in body["shards"]:
        content = service.shard_file(job_id, shard["index"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()
        assert (shard["bytes"], shard["class"]) == (len(content), "pro_b")
        assert service.client.get(shard["url"]).content == content


def test_shard_is_a_tar_that_never_changes(service: Service) -> None:
    job_id = half_done(service)
    url = f"/jobs/{job_id}/shards/0"

    response = service.client.get(url)

    digest = hashlib.sha256(response.content).digest()
    with tarfile.open(fileobj=io.BytesIO(response.content), mode="r:") as tar:
        assert len(tar.getnames()) == service.spec(job_id).chunk(0).count
    assert response.headers["content-type"] == "application/x-tar"
    assert response.headers["etag"] == f'"{digest.hex()}"'
    assert response.headers["repr-digest"] == f"sha-256=:{b64encode(digest).decode()}:"
    assert service.client.get(url, headers={"If-None-Match": f'"{digest.hex()}"'}).status_code == 304


def test_part_of_a_shard(service: Service) -> None:
    url = f"/jobs/{half_done(service)}/shards/2"
    whole = service.client.get(url)

    part = service.client.get(url, headers={"Range": "bytes=512-1023"})

    assert (part.status_code, part.content) == (206, whole.content[512:1024])
    assert part.headers["repr-digest"] == whole.headers["repr-digest"]
    past = service.client.get(url, headers={"Range": f"bytes={len(whole.content)}-"})
    assert (past.status_code, past.json()["code"]) == (416, "range_not_satisfiable")


def test_head_of_a_shard(service: Service) -> None:
    url = f"/jobs/{half_done(service)}/shards/0"

    head, got = service.client.head(url), service.client.get(url)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    assert head.headers["repr-digest"] == got.headers["repr-digest"]


def test_shard_that_is_not_made_yet(service: Service) -> None:
    response = service.client.get(f"/jobs/{half_done(service)}/shards/1")

    assert (response.status_code, response.json()["code"]) == (409, "job_not_finished")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize(("index", "status"), [("999", 404), ("-1", 422), ("x", 422)])
def test_shard_that_never_will_be(service: Service, index: str, status: int) -> None:
    response = service.client.get(f"/jobs/{half_done(service)}/shards/{index}")

    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_canceled_job_keeps_what_was_made(service: Service) -> None:
    job_id = half_done(service)
    service.client.post(f"/jobs/{job_id}/cancel")
    service.ledger.transition(job_id, "canceled", allowed_from=("canceling",), now=service.clock())  # type: ignore[arg-type]

    body = service.client.get(f"/jobs/{job_id}").json()

    assert body["status"] == "canceled"
    assert service.client.get(body["links"]["shards"]).json()["shards"]
    assert service.client.get(f"/jobs/{job_id}/shards/0").status_code == 200
    assert service.client.get(f"/jobs/{job_id}/shards/1").json()["code"] == "job_unsuccessful"
    assert service.client.get(f"/jobs/{job_id}/result").json()["code"] == "job_unsuccessful"


def test_expired_job_has_no_shards_and_says_how_to_make_them_again(service: Service) -> None:
    job_id = service.finished_job()
    service.clock.offset_s = service.settings.result_ttl_s + 1

    for path in ("shards", "shards/0", "result", "images", "images/0"):
        response = service.client.get(f"/jobs/{job_id}/{path}")
        assert (response.status_code, response.json()["code"]) == (410, "gone")
        assert "POST /generate?class=pro_b&n=10&seed=7" in response.json()["detail"]
        assert response.links["regenerate"]["url"].startswith("/generate?class=pro_b&n=10&seed=7")


def test_damaged_shard_is_told(service: Service) -> None:
    job_id = service.finished_job()
    shard = service.shard_file(job_id, 0)
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)

    changed = service.client.get(f"/jobs/{job_id}/shards/0")
    shard.write_bytes(content[:-512])
    short = service.client.get(f"/jobs/{job_id}/shards/0")
    shard.unlink()
    missing = service.client.get(f"/jobs/{job_id}/shards/0")

    for response in (changed, short, missing):
        assert (response.status_code, response.json()["code"]) == (500, "result_lost")


def test_sent_bytes_are_counted(service: Service) -> None:
    url = f"/jobs/{half_done(service)}/shards/0"
    before = service.metric('masan_download_bytes_total{format="shard"}')

    size = len(service.client.get(url).content)

    assert service.metric('masan_download_bytes_total{format="shard"}') == before + size
