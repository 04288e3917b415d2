"""Checkpoints and their reports over HTTP."""

import hashlib

import pytest

from model_store.manifest import FileEntry
from model_store.promotion import promote
from model_store.store import ModelStore
from service.checkpoints import catalogue
from service.settings import ServiceSettings
from tests.checkpoints import CLASSES, publish_tiny
from tests.integration.service.harness import Clock, Service, quality_report, running

pytestmark = pytest.mark.integration


def test_classes_are_the_checkpoints_in_label_order(service: Service) -> None:
    body = service.client.get("/classes").json()

    assert [(item["slug"], item["index"]) for item in body["classes"]] == list(
        zip(CLASSES, (0, 1), strict=True)
    )
    assert body["model"]["digest"] == f"sha256:{service.checkpoint.digest}"


def test_models_are_listed_with_aliases(service: Service) -> None:
    body = service.client.get("/models").json()

    assert body["default"] == "tiny@production"
    (model,) = body["models"]
    (change,) = model.pop("history")
    assert model == {"name": "tiny", "versions": ["1"], "aliases": {"production": "1"}}
    assert (change["action"], change["version"], change["overridden"]) == ("promote", "1", [])


def test_model_card_is_the_whole_manifest(service: Service) -> None:
    body = service.client.get("/models/tiny/versions/1").json()

    assert body["manifest"] == service.checkpoint.manifest.model_dump(mode="json")
    assert body["aliases"] == ["production"]
    assert service.client.get(body["links"]["report"]).status_code == 200
    assert service.client.get(body["links"]["report_page"]).status_code == 200


@pytest.mark.parametrize(
    "path", ["/models/tiny/versions/2", "/models/other/versions/1", "/models/tiny/versions/.."]
)
def test_absent_version_is_not_found(service: Service, path: str) -> None:
    assert service.client.get(path).status_code == 404


def test_distance_of_another_extractor_is_not_called_fid(service: Service) -> None:
    body = service.client.get("/reports/fid?class=pro_b").json()

    figures = body["classes"]["pro_b"]
    assert list(body["classes"]) == ["pro_b"]
    assert (body["model"], body["extractor"]) == ("tiny@1", "efficientnet-lite0")
    assert figures["fid"] is None
    assert "Inception" in figures["fid_reason"]
    assert (figures["frechet_distance"], figures["floor"]) == (60.5, 8.0)
    assert (body["n_real"], body["n_fake"]) == (200, 200)


def test_what_was_forced_stands_in_an_alias_s_history(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_KEEP_S", 0.0)
    store = ModelStore(service.settings.model_store_url)
    publish_tiny(store, "forced")
    promote(store, "forced", "1", force_reason="a demonstration")

    models = {model["name"]: model for model in service.client.get("/models").json()["models"]}

    (change,) = models["forced"]["history"]
    assert (change["alias"], change["version"], change["reason"]) == ("production", "1", "a demonstration")
    assert "has no quality report" in change["overridden"][0]


def test_judges_stand_beside_the_primary_extractor(service: Service) -> None:
    (judge,) = service.client.get("/reports/fid?class=pro_b").json()["judges"]

    assert judge["extractor"] == "efficientnet-lite2"
    assert judge["classes"]["pro_b"]["frechet_distance"] == 70.25
    assert list(judge["classes"]) == ["pro_b"]


def test_report_of_an_unknown_class_lists_those_there_are(service: Service) -> None:
    response = service.client.get("/reports/fid?class=pro")

    assert (response.status_code, response.json()["code"]) == (422, "unknown_class")
    assert response.json()["errors"][0]["allowed"] == list(CLASSES)


def test_checkpoint_without_a_report_has_none(service: Service) -> None:
    publish_tiny(ModelStore(service.settings.model_store_url), "bare")

    response = service.client.get("/reports/fid?model=bare@1")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_inception_distance_is_fid(service: Service) -> None:
    manifest = service.checkpoint.manifest
    store = ModelStore(service.settings.model_store_url)
    report = quality_report(manifest.digest, "inception-v3", "6726825d" + "0" * 56).model_dump_json().encode()
    entry = FileEntry(path="report.json", sha256=hashlib.sha256(report).hexdigest(), size_bytes=len(report))
    weights = store.read_file(service.checkpoint, "weights.safetensors")
    judged = manifest.model_copy(update={"name": "judged", "reports": (entry,)})
    store.publish(judged, {"weights.safetensors": weights, "report.json": report})

    figures = service.client.get("/reports/fid?model=judged").json()["classes"]["pro_b"]

    assert (figures["fid"], figures["fid_reason"]) == (60.5, None)


def test_damaged_manifest_is_told(settings: ServiceSettings, service: Service) -> None:
    publish_tiny(ModelStore(settings.model_store_url), "damaged")
    path = f"{settings.model_store_url}/damaged/versions/1/manifest.json"
    with open(path, "w") as file:  # noqa: PTH123  # the URL is a path here
        file.write("{")
    with running(settings, Clock(), service.checkpoint) as other:
        response = other.client.get("/classes?model=damaged")

    assert (response.status_code, response.json()["code"]) == (500, "model_unusable")
