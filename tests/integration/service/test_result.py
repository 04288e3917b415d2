"""GET /jobs/{id}/result: a sound archive, the same bytes each time, in whole and in part."""

import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.integration.service.harness import SIZE_PX, Service

pytestmark = pytest.mark.integration


def test_archive_is_an_image_folder_with_its_manifest(service: Service) -> None:
    response = service.client.get(f"/jobs/{service.finished_job(n=40)}/result")

    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-length"] == str(len(response.content))
    assert "attachment" in response.headers["content-disposition"]
    assert archive.testzip() is None
    expected = {f"pro_b/{index:06d}.png" for index in range(40)} | {"manifest.jsonl", "certificate.json"}
    assert set(archive.namelist()) == expected
    assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_manifest_describes_every_file(service: Service) -> None:
    content = service.client.get(f"/jobs/{service.finished_job(n=20)}/result").content

    archive = zipfile.ZipFile(io.BytesIO(content))
    rows = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]

    assert [row["index"] for row in rows] == list(range(20))
    for row in rows:
        png = archive.read(row["file"])
        assert hashlib.sha256(png).hexdigest() == row["sha256"]
        image = Image.open(io.BytesIO(png))
        assert (image.mode, image.size) == ("RGB", (SIZE_PX, SIZE_PX))


def test_unzip_finds_no_fault(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "result.zip"
    path.write_bytes(service.client.get(f"/jobs/{service.finished_job()}/result").content)
    try:
        done = subprocess.run(["unzip", "-t", str(path)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs unzip")

    assert done.returncode == 0, done.stdout
    assert "warning" not in (done.stdout + done.stderr).lower()


def test_same_job_gives_same_bytes_and_etag(service: Service) -> None:
    job_id = service.finished_job()

    first, second = (service.client.get(f"/jobs/{job_id}/result") for _ in range(2))

    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]


def test_ranges_join_to_the_whole(service: Service) -> None:
    url = f"/jobs/{service.finished_job()}/result"
    whole = service.client.get(url).content
    middle = len(whole) // 3

    first = service.client.get(url, headers={"Range": f"bytes=0-{middle - 1}"})
    second = service.client.get(url, headers={"Range": f"bytes={middle}-"})
    tail = service.client.get(url, headers={"Range": "bytes=-22"})

    assert (first.status_code, second.status_code) == (206, 206)
    assert first.content + second.content == whole
    assert first.headers["content-range"] == f"bytes 0-{middle - 1}/{len(whole)}"
    assert tail.content == whole[-22:]


def test_range_past_the_end_is_416(service: Service) -> None:
    response = service.client.get(
        f"/jobs/{service.finished_job()}/result", headers={"Range": "bytes=99999999-"}
    )

    assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"].startswith("bytes */")


def test_range_of_another_archive_gets_the_whole(service: Service) -> None:
    headers = {"Range": "bytes=5-9", "If-Range": '"other"'}

    assert service.client.get(f"/jobs/{service.finished_job()}/result", headers=headers).status_code == 200


def test_archive_that_the_client_has_is_304(service: Service) -> None:
    url = f"/jobs/{service.finished_job()}/result"
    etag = service.client.get(url).headers["etag"]

    assert service.client.get(url, headers={"If-None-Match": etag}).status_code == 304


def test_unfinished_job_has_no_result_yet(service: Service) -> None:
    response = service.client.get(f"/jobs/{service.submit()['id']}/result")

    assert (response.status_code, response.json()["code"]) == (409, "job_not_finished")
    assert int(response.headers["retry-after"]) > 0


def test_missing_shard_list_is_told(service: Service) -> None:
    job_id = service.finished_job()
    service.shard_file(job_id, 0).with_suffix(".jsonl").unlink()

    response = service.client.get(f"/jobs/{job_id}/result")

    assert (response.status_code, response.json()["code"]) == (500, "result_lost")


def damage(service: Service, job_id: str, chunk_index: int) -> None:
    shard = service.shard_file(job_id, chunk_index)
    content = bytearray(shard.read_bytes())
    content[600] ^= 0xFF
    shard.write_bytes(content)


def test_damage_in_what_is_sent_first_is_told(service: Service) -> None:
    job_id = service.finished_job(n=20)
    damage(service, job_id, 1)

    response = service.client.get(f"/jobs/{job_id}/result")

    assert (response.status_code, response.json()["code"]) == (500, "result_lost")


def test_damage_further_on_cuts_the_download_short(service: Service) -> None:
    job_id = service.finished_job(n=400)
    damage(service, job_id, service.spec(job_id).chunk_count - 1)

    with pytest.raises(httpx.RemoteProtocolError):
        service.client.get(f"/jobs/{job_id}/result")


def test_shard_of_another_length_is_told_before_a_byte_is_sent(service: Service) -> None:
    job_id = service.finished_job(n=400)
    whole = service.client.get(f"/jobs/{job_id}/result")
    shard = service.shard_file(job_id, service.spec(job_id).chunk_count - 1)
    shard.write_bytes(shard.read_bytes()[:-1])

    response = service.client.get(f"/jobs/{job_id}/result")

    assert whole.status_code == 200
    assert (response.status_code, response.json()["code"]) == (500, "result_lost")


def test_rows_that_read_well_but_are_not_those_that_were_written_are_told(service: Service) -> None:
    job_id = service.finished_job(n=4, seed=7)
    sidecar = service.shard_file(job_id, 0).with_suffix(".jsonl")
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"seed":"7"', b'"seed":"8"', 1))

    for path in ("result", "images", "images/0", "certificate"):
        response = service.client.get(f"/jobs/{job_id}/{path}")
        assert (response.status_code, response.json()["code"]) == (500, "result_lost")


def test_head_tells_length_and_etag_alone(service: Service) -> None:
    url = f"/jobs/{service.finished_job()}/result"
    got = service.client.get(url)

    head = service.client.head(url, headers={"Range": "bytes=0-1"})

    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges", "content-disposition"):
        assert head.headers[name] == got.headers[name]
    assert service.client.head(url, headers={"If-None-Match": got.headers["etag"]}).status_code == 304


def test_archive_holds_the_signed_certificate(service: Service) -> None:
    job_id = service.finished_job()

    archive = zipfile.ZipFile(io.BytesIO(service.client.get(f"/jobs/{job_id}/result").content))

    assert archive.read("certificate.json") == service.client.get(f"/jobs/{job_id}/certificate").content


def test_sent_bytes_are_counted(service: Service) -> None:
    url = f"/jobs/{service.finished_job()}/result"
    before = service.metric('masan_download_bytes_total{format="zip"}')

    size = len(service.client.get(url).content)

    assert service.metric('masan_download_bytes_total{format="zip"}') == before + size
