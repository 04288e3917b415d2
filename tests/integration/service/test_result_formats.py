"""GET /jobs/{id}/result in every format: what its readers find, and that a download can be resumed."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masan.verify import check_job
from service.archives.formats import FORMATS
from tests.integration.service.harness import SIZE_PX, Service

pytestmark = pytest.mark.integration
N = 20


def mixed_job(service: Service, **parameters: str | int | float) -> str:
    """Twelve of pro_b, then eight of benign, in one job."""
    response = service.client.post(
        "/generate", params={"seed": 7, **parameters}, json={"mix": {"pro_b": 12, "benign": 8}}
    )
    assert response.status_code == 202, response.text
    job_id = str(response.json()["id"])
    service.finish(job_id)
    return job_id


def download(service: Service, job_id: str) -> bytes:
    response = service.client.get(f"/jobs/{job_id}/result")
    assert response.status_code == 200, response.text
    return response.content


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_named_and_resumed(service: Service, name: str) -> None:
    url = f"/jobs/{service.finished_job(n=N, format=name)}/result"

    whole = service.client.get(url)
    part = service.client.get(url, headers={"Range": "bytes=777-", "If-Range": whole.headers["etag"]})
    again = service.client.get(url, headers={"If-None-Match": whole.headers["etag"]})

    info = next(info for kind, info in FORMATS.items() if kind == name)
    assert whole.headers["content-type"] == info.media_type
    assert whole.headers["content-length"] == str(len(whole.content))
    assert whole.headers["content-disposition"].endswith(f'{info.suffix}"')
    assert (part.status_code, part.content) == (206, whole.content[777:])
    assert again.status_code == 304


@pytest.mark.parametrize("name", FORMATS)
def test_sent_bytes_are_counted_by_format(service: Service, name: str) -> None:
    sample = f'masan_download_bytes_total{{format="{name}"}}'
    job_id = service.finished_job(n=N, format=name)
    before = service.metric(sample)

    size = len(download(service, job_id))

    assert service.metric(sample) == before + size


def test_tar_of_a_mix_has_each_image_with_its_label(service: Service) -> None:
    content = download(service, mixed_job(service, format="tar"))

    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        names = tar.getnames()
        label = tar.extractfile("pro_b/000011.cls").read()  # type: ignore[union-attr]
    assert names[:2] == [".manifest.jsonl", ".certificate.json"]
    assert names[2:5] == ["pro_b/000000.png", "pro_b/000000.cls", "pro_b/000000.json"]
    assert len(names) == 2 + 3 * N
    assert label == str(service.checkpoint.manifest.class_index("pro_b")).encode()


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_npz_of_a_mix_has_the_pixels_of_the_files(service: Service, image_format: str) -> None:
    npz = download(service, mixed_job(service, format="npz", image_format=image_format))
    archive = download(service, mixed_job(service, image_format=image_format))

    arrays = np.load(io.BytesIO(npz), allow_pickle=False)
    files = zipfile.ZipFile(io.BytesIO(archive))
    rows = [json.loads(line) for line in files.read("manifest.jsonl").splitlines()]
    images = [Image.open(io.BytesIO(files.read(row["file"]))).convert("RGB") for row in rows]
    assert arrays["images"].shape == (N, SIZE_PX, SIZE_PX, 3)
    assert arrays["images"].tobytes() == b"".join(image.tobytes() for image in images)
    assert arrays["image_ids"].tolist() == [row["image_id"] for row in rows]
    assert [str(arrays["classes"][label]) for label in arrays["labels"]] == ["pro_b"] * 12 + ["benign"] * 8
    assert {"manifest.jsonl", "certificate.json"} <= set(arrays.files)


def test_parquet_of_a_mix_has_rows_with_labels(service: Service) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")

    table = parquet.read_table(io.BytesIO(download(service, mixed_job(service, format="parquet"))))

    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names = features["label"]["names"]
    assert names == list(service.checkpoint.manifest.classes)
    assert [names[label] for label in table["label"].to_pylist()] == table["class"].to_pylist()
    assert table["class"].to_pylist() == ["pro_b"] * 12 + ["benign"] * 8
    first = Image.open(io.BytesIO(table["image"][0].as_py()["bytes"]))
    assert first.size == (SIZE_PX, SIZE_PX)


@pytest.mark.parametrize("name", FORMATS)
def test_verifier_finds_each_format_authentic(service: Service, tmp_path: Path, name: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(download(service, mixed_job(service, format=name)))

    findings = check_job(path, None)

    assert findings.problems == []
    assert findings.facts


def test_lossy_images_say_their_quality(service: Service) -> None:
    job_id = service.finished_job(n=N, image_format="jpeg", quality=90)

    archive = zipfile.ZipFile(io.BytesIO(download(service, job_id)))

    rows = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
    assert {row["quality"] for row in rows} == {90}
    assert {Path(row["file"]).suffix for row in rows} == {".jpg"}
    assert Image.open(io.BytesIO(archive.read("pro_b/000003.jpg"))).format == "JPEG"


def test_npz_of_a_lossy_job_is_refused_when_it_is_asked_for(service: Service) -> None:
    asked: dict[str, str | int] = {"class": "pro_b", "n": 4, "format": "npz", "image_format": "jpeg"}

    response = service.client.post("/generate", params=asked)

    assert (response.status_code, response.json()["errors"][0]["name"]) == (422, "format")
