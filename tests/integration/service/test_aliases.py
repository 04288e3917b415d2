"""Promotion and rollback over HTTP: gated, conditional, seen at once."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from model_store.manifest import FileEntry
from model_store.report import ClassChecks, QualityReport
from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights
from service.settings import ServiceSettings
from tests.checkpoints import CLASSES, build_tiny, describe, tiny_config
from tests.integration.service.harness import SIZE_PX, Clock, Service, quality_report, running
from tests.integration.service.keys_file import ADMIN, OTHER, auth, keys_file

pytestmark = pytest.mark.integration

ALIAS = "/models/tiny/aliases/production"


def judged(digest: str, kid: float) -> QualityReport:
    """A report that the gate passes on its own; a higher KID is worse than production."""
    checks = ClassChecks(
        n=100, luma_delta=0.0, luma_sd=10.0, luma_sd_real=10.0, scale_bar_ratio=0.0, memorized_ratio=0.0
    )
    plain = quality_report(digest)
    figures = {slug: f.model_copy(update={"kid": kid}) for slug, f in plain.primary.classes.items()}
    primary = plain.primary.model_copy(update={"classes": figures})
    return plain.model_copy(update={"primary": primary, "checks": dict.fromkeys(CLASSES, checks)})


def publish(store: ModelStore, version: str, kid: float | None) -> Checkpoint:
    config = tiny_config(SIZE_PX)
    weights = encode_weights(build_tiny(config))
    manifest = describe("tiny", version, weights, config)
    files = {WEIGHTS_FILE: weights}
    if kid is not None:
        report = judged(manifest.digest, kid).model_dump_json().encode()
        sha256 = hashlib.sha256(report).hexdigest()
        entry = FileEntry(path="report.json", sha256=sha256, size_bytes=len(report))
        manifest = manifest.model_copy(update={"reports": (entry,)})
        files["report.json"] = report
    return store.publish(manifest, files)


@pytest.fixture
def promotable(
    settings: ServiceSettings, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[Service]:
    """`tiny` with 1 in production, 2 as good, 3 worse, 4 without a report; two keys."""
    folder = tmp_path_factory.mktemp("promotable")
    store = ModelStore(str(folder / "store"))
    first = publish(store, "1", 0.05)
    publish(store, "2", 0.05)
    publish(store, "3", 0.5)
    publish(store, "4", None)
    store.promote("tiny", "1")
    changes = {"model_store_url": store.url, "api_keys_file": keys_file(folder)}
    with running(settings.model_copy(update=changes), Clock(), first) as service:
        service.client.headers.update(auth(ADMIN))
        yield service


def put(service: Service, **body: object) -> httpx.Response:
    return service.client.put(ALIAS, json=body)


def named(service: Service) -> str:
    version: str = service.client.get(ALIAS).json()["model"]["version"]
    return version


def test_a_promotion_is_seen_at_once_and_can_be_taken_back(promotable: Service) -> None:
    assert promotable.client.get("/classes").json()["model"]["version"] == "1"
    before = promotable.client.get(ALIAS)

    promoted = put(promotable, version="2")

    assert (promoted.status_code, promoted.json()["previous"]) == (200, "1")
    assert promoted.headers["etag"] != before.headers["etag"]
    assert promotable.client.get("/classes").json()["model"]["version"] == "2"
    assert promotable.client.get("/models").json()["models"][0]["aliases"] == {"production": "2"}
    back = promotable.client.post("/models/tiny/rollback")
    assert (back.status_code, back.json()["action"], named(promotable)) == (200, "rollback", "1")
    assert promotable.client.get("/classes").json()["model"]["version"] == "1"
    nothing_before = promotable.client.post("/models/tiny/rollback")
    assert nothing_before.status_code == 404
    assert "there is nothing to go back to" in nothing_before.json()["detail"]


def test_running_jobs_keep_the_checkpoint_they_began_with(promotable: Service) -> None:
    promotable.register_worker()
    job = promotable.submit()
    put(promotable, version="2")

    assert promotable.client.get(f"/jobs/{job['id']}").json()["model"]["version"] == "1"
    assert promotable.submit()["model"]["version"] == "2"  # type: ignore[index]


def test_another_process_follows_within_seconds(promotable: Service) -> None:
    with running(promotable.settings, Clock(), promotable.checkpoint) as other:
        other.client.headers.update(auth(ADMIN))
        assert other.client.get("/classes").json()["model"]["version"] == "1"
        put(promotable, version="2")

        deadline = time.monotonic() + 10
        while other.client.get("/classes").json()["model"]["version"] == "1":
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_the_gate_names_each_class_and_figure(promotable: Service) -> None:
    refused = put(promotable, version="3")

    body = refused.json()
    assert (refused.status_code, body["code"]) == (409, "quality_gate_failed")
    assert {error["name"] for error in body["errors"]} == set(CLASSES)
    assert len(body["errors"]) == len(CLASSES)
    assert body["errors"][0]["reason"] == "KID (efficientnet-lite0) is 0.5, in production 0.05"
    assert body["errors"][0]["allowed"] == "at most 0.07"
    assert named(promotable) == "1"


def test_a_version_without_a_report_is_refused_as_a_whole(promotable: Service) -> None:
    refused = put(promotable, version="4").json()

    assert refused["code"] == "quality_gate_failed"
    assert [(error["name"], "no quality report" in error["reason"]) for error in refused["errors"]] == [
        ("version", True)
    ]


def test_force_needs_admin_and_a_reason_that_the_history_keeps(promotable: Service) -> None:
    forced = {"version": "3", "force": True, "reason": "a demonstration"}

    other = promotable.client.put(ALIAS, json=forced, headers=auth(OTHER))
    without = put(promotable, version="3", force=True)
    idle = put(promotable, version="2", reason="why")
    done = put(promotable, **forced)

    assert (other.status_code, other.json()["code"]) == (403, "forbidden")
    assert [a.json()["errors"][0]["name"] for a in (without, idle)] == ["reason"] * 2
    assert (without.status_code, idle.status_code, done.status_code) == (422, 422, 200)
    assert done.json()["reason"] == "a demonstration (key admin)"
    assert len(done.json()["overridden"]) == len(CLASSES)
    history = promotable.client.get("/models").json()["models"][0]["history"]
    assert history[-1]["reason"] == "a demonstration (key admin)"


def test_a_key_that_may_promote_promotes_but_does_not_read(promotable: Service) -> None:
    promoted = promotable.client.put(ALIAS, json={"version": "2"}, headers=auth(OTHER))
    read = promotable.client.get(ALIAS, headers=auth(OTHER))

    assert (promoted.status_code, read.status_code) == (200, 403)


def test_if_match_lets_one_of_two_through(promotable: Service) -> None:
    etag = promotable.client.get(ALIAS).headers["etag"]

    first = promotable.client.put(ALIAS, json={"version": "2"}, headers={"If-Match": etag})
    second = promotable.client.put(ALIAS, json={"version": "1"}, headers={"If-Match": etag})

    assert (first.status_code, second.status_code) == (200, 412)
    assert second.json()["code"] == "precondition_failed"
    assert named(promotable) == "2"


@pytest.mark.parametrize(
    ("headers", "alias", "status"),
    [
        ({"If-Match": "*"}, "production", 200),
        ({"If-Match": "*"}, "canary", 412),
        ({"If-Match": '"other"'}, "production", 412),
        ({"If-None-Match": "*"}, "production", 412),
        ({"If-None-Match": "*"}, "canary", 200),
    ],
)
def test_conditions_are_those_of_http(
    promotable: Service, headers: dict[str, str], alias: str, status: int
) -> None:
    response = promotable.client.put(f"/models/tiny/aliases/{alias}", json={"version": "2"}, headers=headers)

    assert response.status_code == status, response.text


def test_a_weakened_etag_does_not_match_a_put_but_a_get(promotable: Service) -> None:
    weak = f"W/{promotable.client.get(ALIAS).headers['etag']}"

    assert promotable.client.put(ALIAS, json={"version": "2"}, headers={"If-Match": weak}).status_code == 412
    assert promotable.client.get(ALIAS, headers={"If-None-Match": weak}).status_code == 304


def test_racing_promotions_leave_one_history(promotable: Service) -> None:
    etag = promotable.client.get(ALIAS).headers["etag"]

    def promote(_: int) -> int:
        return promotable.client.put(ALIAS, json={"version": "2"}, headers={"If-Match": etag}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(promote, range(8)))

    assert set(statuses) <= {200, 412}
    assert statuses[0] == 200
    history = promotable.client.get("/models").json()["models"][0]["history"]
    assert [change["version"] for change in history] == ["1", "2"]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        (ALIAS, {"version": "9"}, 404, "model"),
        ("/models/nobody/aliases/production", {"version": "1"}, 404, "model"),
        ("/models/tiny/aliases/Bad%20Alias", {"version": "1"}, 422, "alias"),
        ("/models/tiny/aliases/2", {"version": "1"}, 422, "alias"),
        (ALIAS, {}, 422, "version"),
        (ALIAS, {"version": 2}, 422, "version"),
        (ALIAS, {"version": "../1"}, 422, "version"),
        (ALIAS, {"version": "2", "force": "yes"}, 422, "force"),
        (ALIAS, {"version": "2", "alias": "x"}, 422, "alias"),
        (ALIAS, [], 422, "body"),
    ],
)
def test_bad_input_is_named(promotable: Service, path: str, body: object, status: int, field: str) -> None:
    response = promotable.client.put(path, json=body)

    assert (response.status_code, response.json()["errors"][0]["name"]) == (status, field), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert named(promotable) == "1"


@pytest.mark.parametrize("path", ["/models/tiny/aliases/none", "/models/nobody/aliases/production"])
def test_an_alias_that_is_not_there_is_404(promotable: Service, path: str) -> None:
    response = promotable.client.get(path)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
