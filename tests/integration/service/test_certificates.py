"""GET /jobs/{id}/certificate: one signed statement of what a job made."""

import hashlib
import io
import json
import time
import zipfile
from pathlib import Path

import pytest

from masan.verify import check_job
from model_store.certificate import Certificate, parse_public_key, read_certificate
from service.access.key_ring import LOCAL
from service.app import create_app
from service.context import Services
from tests.integration.service.harness import Service
from worker.contract import keys
from worker.contract.messages import ChunkResult, RejectionReason

pytestmark = pytest.mark.integration


def certificate_of(service: Service, job_id: str) -> Certificate:
    """The served certificate, checked with the served key."""
    public_key = service.client.get("/certificates/key").json()["public_key"]
    content = service.client.get(f"/jobs/{job_id}/certificate").content
    return read_certificate(content, parse_public_key(public_key))


def rows_of(service: Service, job_id: str) -> tuple[bytes, list[dict[str, object]]]:
    """The archive's manifest, as it is and line by line."""
    content = service.client.get(f"/jobs/{job_id}/result").content
    manifest = zipfile.ZipFile(io.BytesIO(content)).read("manifest.jsonl")
    return manifest, [json.loads(line) for line in manifest.splitlines()]


def test_certificate_says_what_was_asked_for_and_who_drew_it(service: Service) -> None:
    job_id = service.finished_job(n=20, seed=2**64 - 1)

    certificate = certificate_of(service, job_id)

    assert (certificate.job, certificate.n, certificate.seed) == (job_id, 20, str(2**64 - 1))
    assert certificate.model.digest == service.checkpoint.digest
    assert (certificate.devices, certificate.torch_versions) == (("cpu",), ("none",))
    assert certificate.issued_at.timestamp() == pytest.approx(service.clock(), abs=20)
    assert "synthetic" in certificate.statement


def test_certificate_covers_every_file_of_the_archive(service: Service) -> None:
    job_id = service.finished_job(n=20)

    certificate = certificate_of(service, job_id)

    manifest, rows = rows_of(service, job_id)
    digests = b"".join(bytes.fromhex(str(row["sha256"])) for row in rows)
    assert certificate.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    assert certificate.images_sha256 == hashlib.sha256(digests).hexdigest()
    shards = [service.shard_file(job_id, index) for index in range(len(certificate.shards))]
    assert [hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards] == list(certificate.shards)


@pytest.mark.parametrize("kind", ["zip", "tar", "npz", "parquet"])
def test_every_archive_holds_its_certificate_and_is_proven_by_it(
    service: Service, tmp_path: Path, kind: str
) -> None:
    job_id = str(service.submit(n=20, seed=5, format=kind)["id"])
    service.finish(job_id)
    path = tmp_path / f"job.{kind}"
    path.write_bytes(result_of(service, job_id))
    key = parse_public_key(service.client.get("/certificates/key").json()["public_key"])

    findings = check_job(path, key)

    assert findings.problems == []
    assert "the certificate is of these images" in findings.facts


def result_of(service: Service, job_id: str) -> bytes:
    """A job's archive; a parquet file is made at the first time that it is asked for."""
    deadline = time.monotonic() + 20
    while (response := service.client.get(f"/jobs/{job_id}/result")).status_code != 200:
        assert response.headers.get("retry-after") and time.monotonic() < deadline, response.text
        time.sleep(0.1)
    return response.content


def test_certificate_brings_the_figures_of_the_checkpoints_report(service: Service) -> None:
    certificate = certificate_of(service, service.finished_job())

    quality = certificate.classes["pro_b"].quality
    assert quality is not None
    assert certificate.quality_reason is None
    assert [figures.extractor for figures in quality.figures] == ["efficientnet-lite0", "efficientnet-lite2"]
    assert (quality.figures[0].frechet_distance, quality.figures[0].floor) == (60.5, 8.0)


def test_certificate_without_a_report_says_why(service: Service) -> None:
    report = Path(service.settings.model_store_url) / "tiny/versions/1/report.json"
    aside = report.rename(report.with_suffix(".aside"))
    try:
        job_id = service.finished_job()
        fresh = Services.build(service.settings, service.clock)  # one that has not read the report before
        content = fresh.certificates.certify(fresh.jobs.get(job_id, LOCAL))
        fresh.close()
    finally:
        aside.rename(report)

    certificate = read_certificate(content)
    assert certificate.classes["pro_b"].quality is None
    assert "tiny@1" in str(certificate.quality_reason)


def test_certificate_counts_what_the_gate_replaced(service: Service) -> None:
    job_id = str(service.submit(n=12)["id"])
    service.finish(job_id)
    name = keys.done_key(job_id)
    first = ChunkResult.model_validate_json(str(service.redis.hget(name, "0")))
    rejections = {RejectionReason.LUMA: 3, RejectionReason.SCALE_BAR: 1}
    judged = first.model_copy(update={"rejected": 4, "rejections": rejections})
    service.redis.hset(name, "0", judged.model_dump_json())

    made = certificate_of(service, job_id).classes["pro_b"]

    assert (made.n, made.rejected) == (12, 4)
    assert made.rejections == {"luma": 3, "scale_bar": 1}
    assert made.acceptance_ratio == 0.75


def test_two_processes_with_two_keys_serve_the_same_certificate(service: Service, tmp_path: Path) -> None:
    job_id = service.finished_job()
    first = service.client.get(f"/jobs/{job_id}/certificate").content
    settings = service.settings.model_copy(update={"signing_key_file": tmp_path / "another.pem"})
    other: Services = create_app(settings, clock=service.clock).state.services

    second = other.certificates.certify(other.jobs.get(job_id, LOCAL))

    assert second == first
    assert other.certificates.signing_key.public.id != read_certificate(first).key.id
    other.close()


def test_known_certificate_is_304(service: Service) -> None:
    url = f"/jobs/{service.finished_job()}/certificate"
    etag = service.client.get(url).headers["etag"]

    assert service.client.get(url, headers={"If-None-Match": etag}).status_code == 304


def test_job_links_to_its_certificate_once_there_is_one(service: Service) -> None:
    body = service.submit()
    links: object = body["links"]
    service.finish(str(body["id"]))

    finished = service.client.get(f"/jobs/{body['id']}").json()["links"]

    assert isinstance(links, dict)
    assert links["certificate"] is None
    assert finished["certificate"] == f"/jobs/{body['id']}/certificate"


def test_unfinished_job_is_not_certified(service: Service) -> None:
    response = service.client.get(f"/jobs/{service.submit()['id']}/certificate")

    assert (response.status_code, response.json()["code"]) == (409, "job_not_finished")


def test_canceled_job_is_not_certified(service: Service) -> None:
    job_id = service.submit()["id"]
    service.client.post(f"/jobs/{job_id}/cancel")

    response = service.client.get(f"/jobs/{job_id}/certificate")

    assert (response.status_code, response.json()["code"]) == (409, "job_unsuccessful")


def test_certificate_goes_with_its_job(service: Service) -> None:
    job_id = service.finished_job()
    url = f"/jobs/{job_id}/certificate"
    assert service.client.get(url).status_code == 200
    kept_s = service.redis.ttl(keys.certificate_key(job_id))
    service.clock.offset_s = service.settings.result_ttl_s + 1

    response = service.client.get(url)

    assert (response.status_code, response.json()["code"]) == (410, "gone")
    assert 0 < kept_s <= service.settings.result_ttl_s


def test_lost_sidecar_is_told(service: Service) -> None:
    job_id = service.finished_job()
    service.shard_file(job_id, 0).with_suffix(".jsonl").unlink()

    response = service.client.get(f"/jobs/{job_id}/certificate")

    assert (response.status_code, response.json()["code"]) == (500, "result_lost")


def test_key_is_given_as_json_and_as_pem(service: Service) -> None:
    body = service.client.get("/certificates/key").json()
    pem = service.client.get("/certificates/key", headers={"Accept": "application/x-pem-file"})

    assert pem.headers["content-type"] == "application/x-pem-file"
    assert body["algorithm"] == "Ed25519"
    assert parse_public_key(pem.text) == parse_public_key(body["public_key"])
    assert service.client.get("/certificates/key").json() == body
