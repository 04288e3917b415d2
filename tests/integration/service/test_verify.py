"""POST /verify: files that came from here, that were changed since, and that never were ours."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model_store.image_id import ImageId
from service.results.verification import MAX_FILE_BYTES
from tests.integration.service.drawing import answered, working_meanwhile
from tests.integration.service.harness import Service

pytestmark = pytest.mark.integration

PNG = {"Content-Type": "image/png"}


def id_of(service: Service, **changes: Any) -> ImageId:
    fields: dict[str, Any] = {
        "digest": service.checkpoint.digest[:16],
        "class_slug": "pro_b",
        "seed": 5,
        "index": 3,
    }
    return ImageId(**fields | changes)


def image_of(service: Service, **parameters: str) -> bytes:
    """An image file as the service delivers it."""
    url = f"/images/{id_of(service)}"
    response = answered(service, lambda: service.client.get(url, params=parameters))
    assert response.status_code == 200, response.text
    return response.content


def verdict_on(
    service: Service, content: bytes, media_type: str = "image/png", **query: str
) -> dict[str, Any]:
    """The answer to a file."""

    def ask() -> httpx.Response:
        headers = {"Content-Type": media_type}
        return service.client.post("/verify", content=content, headers=headers, params=query)

    response = answered(service, ask)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def marked(image: Image.Image, image_id: ImageId) -> bytes:
    """A PNG that claims to be that image."""
    text, buffer = PngInfo(), io.BytesIO()
    text.add_itxt("ImageId", str(image_id))
    image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def test_delivered_file_is_exact(service: Service) -> None:
    body = verdict_on(service, image_of(service))

    assert (body["verdict"], body["image_id"], body["checkpoint"]) == (
        "exact",
        str(id_of(service)),
        "tiny@1",
    )
    assert (body["difference"]["max_levels"], body["device"]) == (0, "cpu")


def test_reencoded_file_has_our_pixels(service: Service) -> None:
    with Image.open(io.BytesIO(image_of(service))) as image:
        content = marked(image, id_of(service))

    assert verdict_on(service, content)["verdict"] == "pixels"


def test_retouched_file_is_altered(service: Service) -> None:
    with Image.open(io.BytesIO(image_of(service))) as image:
        image.paste((0, 0, 0), (0, 0, 4, 4))
        content = marked(image, id_of(service))

    body = verdict_on(service, content)

    assert body["verdict"] == "altered"
    assert body["difference"]["max_levels"] > 1
    assert body["difference"]["changed_ratio"] <= 16 / 256


def test_borrowed_id_is_altered(service: Service) -> None:
    """Another picture that carries an id of ours."""
    body = verdict_on(service, marked(Image.new("RGB", (40, 30)), id_of(service)))

    assert (body["verdict"], body["difference"]) == ("altered", None)
    assert "40 x 30" in body["detail"]


def test_id_that_its_checkpoint_cannot_have_given_is_altered(service: Service) -> None:
    content = marked(Image.new("RGB", (16, 16)), id_of(service, class_slug="pre_b"))

    assert verdict_on(service, content)["verdict"] == "altered"


def test_image_of_another_service_is_of_an_unknown_checkpoint(service: Service) -> None:
    content = marked(Image.new("RGB", (16, 16)), id_of(service, digest="0" * 16))

    body = verdict_on(service, content)

    assert body["verdict"] == "unknown_checkpoint"
    assert "tiny@1" in body["detail"]


def test_file_without_a_mark_says_nothing(service: Service) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")

    body = verdict_on(service, buffer.getvalue())

    assert (body["verdict"], body["image_id"]) == ("no_mark", None)


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_other_formats_are_exact_too(service: Service, image_format: str) -> None:
    content = image_of(service, image_format=image_format)

    assert verdict_on(service, content, f"image/{image_format}")["verdict"] == "exact"


def test_lossy_webp_needs_its_quality(service: Service) -> None:
    content = image_of(service, image_format="webp", quality="60")

    refused = service.client.post("/verify", content=content, headers={"Content-Type": "image/webp"})
    body = verdict_on(service, content, "image/webp", quality="60")

    assert (refused.status_code, refused.json()["errors"][0]["name"]) == (422, "quality")
    assert body["verdict"] == "exact"


def test_other_media_types_are_refused(service: Service) -> None:
    for headers in ({"Content-Type": "application/zip"}, {}):
        response = service.client.post("/verify", content=b"x", headers=headers)

        body = response.json()
        assert (response.status_code, body["code"]) == (415, "unsupported_media_type")
        assert body["errors"][0]["allowed"] == ["image/png", "image/webp", "image/jpeg"]


def test_large_body_is_refused(service: Service) -> None:
    content = bytes(MAX_FILE_BYTES + 1)

    response = service.client.post("/verify", content=content, headers=PNG)

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_largest_body_is_taken(service: Service) -> None:
    assert verdict_on(service, bytes(MAX_FILE_BYTES))["verdict"] == "no_mark"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff\xe1"]), st.binary())
def test_hostile_bytes_never_upset_the_service(service: Service, head: bytes, tail: bytes) -> None:
    response = service.client.post("/verify", content=head + tail, headers=PNG)

    assert (response.status_code, response.json()["verdict"]) == (200, "no_mark")


def test_command_asks_the_server_about_an_image(service: Service, tmp_path: Path) -> None:
    ours, other = tmp_path / "ours.png", tmp_path / "other.png"
    ours.write_bytes(image_of(service))
    other.write_bytes(marked(Image.new("RGB", (16, 16)), id_of(service)))

    found = verify_command(service, ours)
    altered = verify_command(service, other)

    assert (found.returncode, "exact" in found.stdout) == (0, True)
    assert (altered.returncode, "altered: the pixels are not those" in altered.stderr) == (1, True)


def test_command_takes_the_key_of_a_certificate_from_the_server(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(service.client.get(f"/jobs/{service.finished_job()}/certificate").content)

    done = verify_command(service, path)

    assert (done.returncode, "the one given" in done.stdout) == (0, True)


def verify_command(service: Service, path: Path) -> "subprocess.CompletedProcess[str]":
    """`masan verify PATH --server`, while a worker draws what it asks for."""
    url = str(service.client.base_url)
    command = [sys.executable, "-m", "masan.cli", "verify", str(path), "--server", url]
    return working_meanwhile(
        service, lambda: subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    )
