"""Who may ask: this machine without keys; with keys, those who have the scope."""

import hashlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from model_store.store import Checkpoint
from service.access.api_keys import ApiKey, create_key, revoke_key
from service.access.auth import PUBLIC_PATHS, Scope
from service.access.key_ring import LOOK_EVERY_S
from service.settings import ServiceSettings
from service.transport.limits import MAX_BODY_BYTES
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


def test_every_route_of_the_document_but_the_probes_needs_a_key(guarded: Service) -> None:
    paths = guarded.client.get("/openapi.json").json()["paths"]
    filled = {path: path.replace("{", "").replace("}", "") for path in paths}

    open_to_all = {
        path
        for path, operations in paths.items()
        for method in operations
        if guarded.client.request(method, filled[path]).status_code != 401
    }

    assert len(paths) > 15
    assert open_to_all == set(PUBLIC_PATHS) & set(paths)


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [("GET", "/jobs?what=1", b""), ("POST", "/generate", b"{"), ("PUT", "/models/tiny/aliases/x", b"{")],
)
def test_who_asks_is_known_before_what_is_asked(
    guarded: Service, method: str, path: str, content: bytes
) -> None:
    headers = {"Content-Type": "application/json"}

    response = guarded.client.request(method, path, content=content, headers=headers)

    assert response.json()["code"] == "unauthorized"


@pytest.fixture
def changing(
    settings: ServiceSettings, checkpoint: Checkpoint, tmp_path: Path
) -> Iterator[tuple[Service, Path, str]]:
    """A service, its keys file, and the one key that is in it."""
    path = tmp_path / "keys.jsonl"
    key = create_key(path, reader, time.time())
    with running(settings.model_copy(update={"api_keys_file": path}), Clock(), checkpoint) as service:
        service.client.headers["X-API-Key"] = key
        yield service, path, key


def reader(sha256: str) -> ApiKey:
    return ApiKey(
        id="lab",
        sha256=sha256,
        scopes=frozenset({Scope.MODELS_READ}),
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )


def status_after(service: Service, wanted: int, within_s: float = 4) -> int:
    """The status of a request, once it is the one wanted or the time is over."""
    deadline = time.monotonic() + within_s
    while (status := service.client.get("/classes").status_code) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return status


def test_revocation_works_within_seconds_without_a_restart(changing: tuple[Service, Path, str]) -> None:
    service, path, _ = changing
    assert service.client.get("/classes").status_code == 200

    revoke_key(path, "lab", time.time())

    assert status_after(service, 401) == 401
    service.client.headers["X-API-Key"] = create_key(path, reader, time.time())
    assert status_after(service, 200) == 200


def test_a_broken_keys_file_opens_nothing_and_locks_nobody_out(changing: tuple[Service, Path, str]) -> None:
    service, path, _ = changing

    path.write_text("{ broken\n")
    time.sleep(LOOK_EVERY_S + 0.1)

    assert service.client.get("/classes").status_code == 200
    assert service.client.get("/classes", headers={"X-API-Key": "mk_any"}).status_code == 401
    path.write_text("")
    assert status_after(service, 401) == 401


def test_a_key_ends_when_it_expires(changing: tuple[Service, Path, str]) -> None:
    service, _, _ = changing
    service.clock.offset_s = 86_300.0
    before = service.client.get("/classes").status_code
    service.clock.offset_s = 86_500.0

    assert (before, service.client.get("/classes").status_code) == (200, 401)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_answer_lets_a_web_page_of_elsewhere_read_it(guarded: Service, method: str) -> None:
    headers = {
        "Origin": "https://elsewhere.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
        "X-API-Key": ROOT,
    }

    for path in ("/generate?class=pro_b&n=1", "/classes", "/readyz"):
        response = guarded.client.request(method, path, headers=headers)

        assert not [name for name in response.headers if name.startswith("access-control-")]
        if method == "OPTIONS":
            assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")


def test_preflight_from_elsewhere_is_forbidden_without_keys(service: Service) -> None:
    response = service.client.options("/generate", headers={"Origin": "https://elsewhere.example"})

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert not [name for name in response.headers if name.startswith("access-control-")]


def _blocks() -> Iterator[bytes]:
    for _ in range(1_000):
        yield b"x" * 65_536


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        ({"content": b"x" * (MAX_BODY_BYTES + 1)}, 413, "body_too_large"),
        ({"content": b" " * (65_536 + 1)}, 413, "body_too_large"),
        ({"url": "/admin/drain", "content": b" " * (16_384 + 1)}, 413, "body_too_large"),
        ({"url": "/admin/drain", "content": _blocks}, 413, "body_too_large"),
        ({"params": {"class": "a" * 9_000}}, 414, "uri_too_long"),
        ({"params": [("class", "a")] * 100}, 422, "invalid_parameter"),
        ({"headers": {"X-Long": "a" * 40_000}}, 431, "headers_too_large"),
        ({"headers": [(f"X-{i}", "a") for i in range(200)]}, 431, "headers_too_large"),
    ],
    ids=["length", "options", "json", "chunked", "query", "parameters", "header", "headers"],
)
def test_what_is_too_large_is_a_problem_document(
    service: Service, request_of: dict[str, Any], status: int, code: str
) -> None:
    asked = {key: value() if callable(value) else value for key, value in request_of.items()}

    response = service.client.post(**{"url": "/generate"} | asked)

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert service.client.get("/livez").status_code == 200


_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=80)
_NAMES = st.sampled_from(["Authorization", "X-API-Key", "X-Request-Id", "Prefer", "Range", "Cookie"])
_KEYS = (
    _TEXT | _TEXT.map("Bearer {}".format) | st.sampled_from([f"Bearer{READER}", f"Basic {ROOT}", READER[:-1]])
)


@settings_of(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=st.lists(st.tuples(_NAMES, _KEYS | _TEXT), max_size=4), method=st.sampled_from(["GET", "POST"])
)
def test_no_made_up_key_passes_and_none_breaks_the_service(
    guarded: Service, headers: list[tuple[str, str]], method: str
) -> None:
    raw = [(name.encode(), value.strip().encode("latin-1")) for name, value in headers]

    response = guarded.client.request(method, "/classes" if method == "GET" else "/generate", headers=raw)

    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
