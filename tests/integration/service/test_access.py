"""Who may ask: this machine without keys; with keys, those who have the scope."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.store import Checkpoint
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running

pytestmark = pytest.mark.integration

READER, MAKER, ROOT = "mk_reader-0123456789", "mk_maker-01234567890", "mk_root-012345678901"


@pytest.fixture(scope="module")
def guarded(
    settings: ServiceSettings, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that knows two keys from a file and one from the environment."""
    rows = [(READER, ["jobs:read", "models:read"]), (MAKER, ["generate"])]
    lines = [
        json.dumps({"id": key[3:8], "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": scopes})
        for key, scopes in rows
    ]
    path: Path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with_keys = ServiceSettings(**settings.model_dump() | {"api_keys_file": path, "api_key": ROOT})
    with running(with_keys, Clock(), checkpoint) as service:
        yield service


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.1:80"])
def test_foreign_host_is_refused_without_keys(service: Service, host: str) -> None:
    response = service.client.get("/classes", headers={"Host": host})

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8000", "LOCALHOST:3"])
def test_loopback_names_are_answered(service: Service, host: str) -> None:
    assert service.client.get("/classes", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[broken"])
def test_foreign_origin_is_refused_without_keys(service: Service, origin: str) -> None:
    response = service.client.post("/generate?class=pro_b&n=1", headers={"Origin": origin})

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}])
def test_without_a_key_nothing_is_told(guarded: Service, headers: dict[str, str]) -> None:
    for path in ("/classes", "/models", "/jobs", "/workers", "/reports/fid"):
        response = guarded.client.get(path, headers=headers)

        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", [{"Authorization": f"Bearer {READER}"}, {"X-API-Key": READER}])
def test_key_opens_what_its_scopes_say(guarded: Service, header: dict[str, str]) -> None:
    allowed = guarded.client.get("/classes", headers=header)
    refused = guarded.client.post("/generate?class=pro_b&n=1", headers=header)

    assert allowed.status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_a_reader_cannot_ask_for_a_report(guarded: Service) -> None:
    refused = guarded.client.post("/reports", headers={"X-API-Key": READER})

    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_key_from_the_environment_has_all_rights(guarded: Service, redis_url: str) -> None:
    guarded.register_worker()
    headers = {"X-API-Key": ROOT, "Host": "masan.example"}

    assert guarded.client.post("/generate?class=pro_b&n=1", headers=headers).status_code == 202
    assert guarded.client.get("/jobs", headers=headers).status_code == 200


def test_probes_and_metrics_need_no_key(guarded: Service, redis_url: str) -> None:
    guarded.register_worker()

    assert [
        guarded.client.get(path).status_code for path in ("/livez", "/readyz", "/startupz", "/metrics")
    ] == [200] * 4
