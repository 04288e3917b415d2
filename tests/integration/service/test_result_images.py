"""GET /jobs/{id}/images: each image with what is known of it, in order, once."""

import hashlib
import io

import pytest
from PIL import Image

from tests.integration.service.harness import Service

pytestmark = pytest.mark.integration


def pages(service: Service, job_id: str, limit: int) -> list[dict[str, object]]:
    """All images, page by page."""
    images: list[dict[str, object]] = []
    cursor: dict[str, str] = {}
    while True:
        body = service.client.get(f"/jobs/{job_id}/images", params={"limit": limit, **cursor}).json()
        assert len(body["images"]) <= limit
        images += body["images"]
        if body["next_cursor"] is None:
            return images
        cursor = {"cursor": body["next_cursor"]}


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_join_to_all_images(service: Service, limit: int) -> None:
    job_id = service.finished_job(n=40)

    images = pages(service, job_id, limit)

    assert [image["i"] for image in images] == list(range(40))
    assert {image["class"] for image in images} == {"pro_b"}
    assert len({image["sha256"] for image in images}) == 40


def test_running_job_goes_on_where_images_are_yet_to_come(service: Service) -> None:
    job_id = str(service.submit(n=40)["id"])
    spec = service.spec(job_id)
    first = spec.chunk(0).count
    for chunk_index in (0, 2):
        service.make_chunk(spec.chunk(chunk_index))

    response = service.client.get(f"/jobs/{job_id}/images")
    before = response.json()
    service.make_chunk(spec.chunk(1))
    after = service.client.get(f"/jobs/{job_id}/images", params={"cursor": before["next_cursor"]}).json()

    assert [image["i"] for image in before["images"]] == list(range(first))
    assert int(response.headers["retry-after"]) > 0
    assert [image["i"] for image in after["images"]][:3] == [first, first + 1, first + 2]


def test_job_that_failed_lists_what_it_made(service: Service) -> None:
    job_id = str(service.submit(n=40)["id"])
    spec = service.spec(job_id)
    service.make_chunk(spec.chunk(1))
    service.ledger.transition(job_id, "failed", allowed_from=("running",), now=service.clock())  # type: ignore[arg-type]

    body = service.client.get(f"/jobs/{job_id}/images").json()

    assert [image["i"] for image in body["images"]] == list(
        range(spec.chunk(0).count, spec.chunk(0).count + spec.chunk(1).count)
    )
    assert body["next_cursor"] is None


def test_places_count_over_all_classes(service: Service) -> None:
    asked = {"mix": {"pro_b": 12, "benign": 8}}
    job_id = str(service.client.post("/generate", params={"seed": 7}, json=asked).json()["id"])
    service.finish(job_id)

    images = pages(service, job_id, 100)
    image = service.client.get(f"/jobs/{job_id}/images/13")

    assert [(row["class"], row["index"]) for row in images[11:14]] == [
        ("pro_b", 11),
        ("benign", 0),
        ("benign", 1),
    ]
    assert hashlib.sha256(image.content).hexdigest() == images[13]["sha256"]
    assert image.headers["content-disposition"] == 'inline; filename="benign-000001.png"'


@pytest.mark.parametrize(("image_format", "suffix"), [("png", "png"), ("webp", "webp"), ("jpeg", "jpg")])
def test_image_is_the_file_of_the_archive(service: Service, image_format: str, suffix: str) -> None:
    job_id = service.finished_job(image_format=image_format)
    row = pages(service, job_id, 100)[3]

    response = service.client.get(str(row["url"]))

    digest = hashlib.sha256(response.content).hexdigest()
    assert response.headers["content-type"] == f"image/{image_format}"
    assert (digest, response.headers["etag"]) == (row["sha256"], f'"{digest}"')
    assert row["file"] == f"pro_b/000003.{suffix}"
    assert Image.open(io.BytesIO(response.content)).format == image_format.upper()
    again = service.client.get(str(row["url"]), headers={"If-None-Match": f'"{digest}"'})
    assert (again.status_code, again.content) == (304, b"")
    assert service.client.head(str(row["url"])).headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("images/10", 404, "not_found"),
        ("images/-1", 422, "invalid_parameter"),
        ("images?cursor=i11", 422, "invalid_parameter"),
        ("images?cursor=x", 422, "invalid_parameter"),
        ("images?limit=0", 422, "invalid_parameter"),
    ],
)
def test_what_a_job_does_not_have(service: Service, path: str, status: int, code: str) -> None:
    response = service.client.get(f"/jobs/{service.finished_job()}/{path}")

    assert (response.status_code, response.json()["code"]) == (status, code)


def test_image_that_is_not_made_yet(service: Service) -> None:
    response = service.client.get(f"/jobs/{service.submit()['id']}/images/9")

    assert (response.status_code, response.json()["code"]) == (409, "job_not_finished")


def test_damaged_image_is_told_and_the_others_are_sent(service: Service) -> None:
    job_id = service.finished_job()
    rows = pages(service, job_id, 100)
    shard = service.shard_file(job_id, 0)
    content = bytearray(shard.read_bytes())
    content[512 + 40] ^= 1  # behind the header of the first image
    shard.write_bytes(content)

    responses = [service.client.get(str(row["url"])) for row in rows[:2]]

    assert [response.status_code for response in responses] == [500, 200]
    assert responses[0].json()["code"] == "result_lost"
