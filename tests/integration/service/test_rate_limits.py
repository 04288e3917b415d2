"""Limits of a key: shared by all processes, told in headers, given back where nothing came of it."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis

from service.access.api_keys import KeyLimits, Scope
from service.access.drain import Drain
from service.access.key_ring import Principal
from service.access.rate_limits import DAY_S, RESERVED_S, RateLimits, Standing, seconds_left, standing_var
from service.errors import RateLimitedError, TooManyJobsError
from service.jobs.record import JobRecord
from tests.integration.service.harness import Clock, Service, running
from tests.integration.service.keys_file import ADMIN, LIMITED, OTHER, auth, keys_file
from worker.contract.messages import JobStatus

pytestmark = pytest.mark.integration

MIDNIGHT = 1_800_057_600.0
"""A UTC one."""


@contextmanager
def limited(service: Service, tmp_path: Path, **limits: int) -> Iterator[Service]:
    """A service with keys whose client sends the limited one; its clock stands at noon until it is moved."""
    settings = service.settings.model_copy(update={"api_keys_file": keys_file(tmp_path, **limits)})
    with running(settings, Still(), service.checkpoint) as guarded:
        guarded.client.headers.update(auth(LIMITED))
        guarded.register_worker()
        yield guarded


class Still(Clock):
    """A clock that moves only by hand."""

    def __call__(self) -> float:
        return MIDNIGHT + DAY_S / 2 + self.offset_s


def generate(service: Service, n: int = 5, headers: dict[str, str] | None = None) -> httpx.Response:
    return service.client.post(f"/generate?class=pro_b&n={n}", headers=headers)


def refusals(service: Service, reason: str) -> float:
    return service.metric(f'masan_admission_rejections_total{{reason="{reason}"}}')


def parse(header: str) -> dict[str, dict[str, str]]:
    """An RFC 9651 list of strings with parameters."""
    items = [re.fullmatch(r'"([a-z]+)"((?:;[a-z]+=(?:\d+|"[a-z]+"))+)', item) for item in header.split(", ")]
    assert all(items), header
    return {
        item[1]: dict(pair.split("=") for pair in item[2].removeprefix(";").split(";"))
        for item in items
        if item
    }


def test_requests_over_the_rate_are_refused_and_told_when_to_come_back(
    service: Service, tmp_path: Path
) -> None:
    with limited(service, tmp_path, requests_per_minute=3) as guarded:
        answers = [guarded.client.get("/jobs") for _ in range(4)]
        guarded.clock.offset_s = float(answers[-1].headers["retry-after"])
        later = guarded.client.get("/jobs")
        again = guarded.client.get("/jobs")

        assert [a.status_code for a in (*answers, later, again)] == [200, 200, 200, 429, 200, 429]
        assert [parse(a.headers["ratelimit"])["requests"]["r"] for a in answers] == ["2", "1", "0", "0"]
        assert parse(answers[0].headers["ratelimit-policy"]) == {"requests": {"q": "3", "w": "60"}}
        assert answers[3].json()["code"] == "rate_limited"
        assert answers[3].headers["retry-after"] == "20"
        assert refusals(guarded, "rate_limited") == 2


def test_a_rate_is_of_one_key_and_of_no_probe(service: Service, tmp_path: Path) -> None:
    with limited(service, tmp_path, requests_per_minute=1) as guarded:
        guarded.client.get("/jobs")

        assert guarded.client.get("/jobs").status_code == 429
        assert [guarded.client.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]
        for other in (OTHER, ADMIN):
            answer = guarded.client.get("/jobs", headers=auth(other))
            assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)


def test_wrong_requests_count_too(service: Service, tmp_path: Path) -> None:
    with limited(service, tmp_path, requests_per_minute=2) as guarded:
        codes = [guarded.client.get("/jobs?what=1").status_code for _ in range(3)]

    assert codes == [422, 422, 429]


def test_without_keys_there_is_no_limit_and_no_header(service: Service) -> None:
    answer = service.client.get("/jobs")

    assert {"ratelimit", "ratelimit-policy"}.isdisjoint(answer.headers)


def test_processes_share_the_limits(service: Service, tmp_path: Path) -> None:
    limits = {"requests_per_minute": 4, "images_per_day": 10}
    with limited(service, tmp_path, **limits) as first, limited(service, tmp_path, **limits) as second:
        codes = [generate(each).status_code for each in (first, second, first, second, first)]

    assert codes == [202, 202, 429, 429, 429]


def test_images_of_a_day_are_counted_until_midnight(service: Service, tmp_path: Path) -> None:
    with limited(service, tmp_path, images_per_day=12) as guarded:
        first, second = generate(guarded, 5), generate(guarded, 8)
        third = generate(guarded, 7)
        guarded.clock.offset_s = DAY_S / 2 - 1
        at_night = generate(guarded, 1)
        guarded.clock.offset_s = DAY_S / 2
        guarded.register_worker()
        tomorrow = generate(guarded, 12)

        assert [a.status_code for a in (first, second, third, at_night, tomorrow)] == [
            202,
            429,
            202,
            429,
            202,
        ]
        assert parse(first.headers["ratelimit"]) == {"images": {"r": "7", "t": str(DAY_S // 2)}}
        assert parse(first.headers["ratelimit-policy"]) == {
            "images": {"q": "12", "w": str(DAY_S), "qu": '"images"'}
        }
        assert (second.json()["code"], second.headers["retry-after"]) == ("quota_exceeded", str(DAY_S // 2))
        assert at_night.headers["retry-after"] == "1"
        assert refusals(guarded, "quota") == 2


def test_looking_costs_no_images(service: Service, tmp_path: Path) -> None:
    with limited(service, tmp_path, images_per_day=5) as guarded:
        left = [parse(guarded.client.get("/jobs").headers["ratelimit"])["images"]["r"] for _ in range(2)]

        assert left == ["5", "5"]
        assert generate(guarded, 5).status_code == 202


@pytest.mark.parametrize("path", ["class=nobody&n=5", "class=pro_b&n=5&truncation=2", "class=pro_b&n=99999"])
def test_a_refused_submission_costs_nothing(service: Service, tmp_path: Path, path: str) -> None:
    with limited(service, tmp_path, images_per_day=5, max_active_jobs=1) as guarded:
        refused = guarded.client.post(f"/generate?{path}")

        assert refused.status_code == 422
        assert generate(guarded, 5).status_code == 202


def test_a_failed_submission_gives_its_images_and_its_place_back(service: Service, tmp_path: Path) -> None:
    with limited(service, tmp_path, images_per_day=5, max_active_jobs=1) as guarded:
        guarded.redis.delete("masan:workers")
        failed = generate(guarded, 5)
        guarded.register_worker()

        assert (failed.status_code, failed.json()["code"]) == (503, "no_worker")
        assert generate(guarded, 5).status_code == 202


def test_jobs_at_a_time_are_bounded_until_one_ends(service: Service, tmp_path: Path) -> None:
    with limited(service, tmp_path, max_active_jobs=2) as guarded:
        first, second, third = (generate(guarded) for _ in range(3))
        guarded.client.post(f"/jobs/{first.json()['id']}/cancel")
        fourth = generate(guarded)
        guarded.finish(second.json()["id"])
        fifth = generate(guarded)

        assert [a.status_code for a in (first, second, third, fourth, fifth)] == [202, 202, 429, 202, 202]
        assert third.json()["code"] == "too_many_jobs"
        assert int(third.headers["retry-after"]) > 0
        assert refusals(guarded, "active_jobs") == 1
        assert generate(guarded, headers=auth(OTHER)).status_code == 202


def test_nothing_is_kept_for_ever(service: Service, tmp_path: Path) -> None:
    everything = {"max_active_jobs": 2, "images_per_day": 50, "requests_per_minute": 9}
    with limited(service, tmp_path, **everything) as guarded:
        generate(guarded)
        kept = [key for key in guarded.redis.scan_iter("masan:*:limit*") if "jobs:of" not in key]

        assert len(kept) == 3
        assert all(guarded.redis.ttl(key) > 0 for key in kept)


def test_a_retried_job_takes_a_place_but_no_images(service: Service, tmp_path: Path) -> None:
    with limited(service, tmp_path, max_active_jobs=1, images_per_day=10) as guarded:
        first = generate(guarded).json()["id"]
        guarded.client.post(f"/jobs/{first}/cancel")
        second = generate(guarded).json()["id"]

        refused = guarded.client.post(f"/jobs/{first}/retry")
        guarded.client.post(f"/jobs/{second}/cancel")
        retried = guarded.client.post(f"/jobs/{first}/retry")

        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
        assert (retried.status_code, generate(guarded).status_code) == (202, 429)


def test_racing_requests_pass_no_limit(service: Service, tmp_path: Path) -> None:
    limits = {"max_active_jobs": 3, "images_per_day": 25}
    with (
        limited(service, tmp_path, **limits) as first,
        limited(service, tmp_path, **limits) as second,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = list(pool.map(lambda i: generate((first, second)[i % 2], 10), range(12)))

    assert sorted(a.status_code for a in answers) == [202] * 2 + [429] * 10


@pytest.fixture
def limits(service: Service) -> RateLimits:
    return RateLimits(service.redis, Drain(service.redis))


def principal(**limits: int) -> Principal:
    return Principal("lab", frozenset({Scope.GENERATE}), KeyLimits(**limits))


def passes(limits: RateLimits, who: Principal, now: float) -> bool:
    try:
        limits.pass_request(who, now)
    except RateLimitedError:
        return False
    return True


def test_an_even_pace_at_the_rate_always_passes(limits: RateLimits) -> None:
    who = principal(requests_per_minute=7)

    assert all(passes(limits, who, MIDNIGHT + i * 60 / 7 + 1e-6) for i in range(100))


def test_in_any_minute_pass_no_more_than_the_burst_and_the_pace(limits: RateLimits) -> None:
    who = principal(requests_per_minute=10)
    times = [MIDNIGHT + i * 0.5 for i in range(600)]

    passed = [now for now in times if passes(limits, who, now)]

    assert len(passed) == 10 + 299 // 6  # the burst at once, then one each 6 s of 299.5
    assert max(sum(a <= b < a + 60 for b in passed) for a in passed) == 10 + 9


def test_a_clock_that_was_put_back_locks_nobody_out(limits: RateLimits) -> None:
    who = principal(requests_per_minute=2)
    for _ in range(2):
        limits.pass_request(who, MIDNIGHT + DAY_S)

    assert not passes(limits, who, MIDNIGHT)
    assert passes(limits, who, MIDNIGHT + 31)


def test_a_place_of_a_job_that_was_never_written_is_free_again(limits: RateLimits, redis_url: str) -> None:
    who = principal(max_active_jobs=1)

    class Killed(BaseException):
        """The process ends: nothing is given back."""

    def killed() -> JobRecord:
        raise Killed

    broken = RateLimits(Redis.from_url(redis_url, decode_responses=True), limits._drain)
    broken._give_back = lambda **_: 0  # type: ignore[assignment]
    with pytest.raises(Killed):
        broken.admit(who, 1, MIDNIGHT, killed)

    with pytest.raises(TooManyJobsError):
        limits.admit(who, 1, MIDNIGHT + RESERVED_S, killed)
    with pytest.raises(Killed):
        limits.admit(who, 1, MIDNIGHT + RESERVED_S + 1, killed)


def test_what_is_left_is_noted_for_the_answer(limits: RateLimits) -> None:
    token = standing_var.set(Standing())
    try:
        limits.pass_request(principal(requests_per_minute=60, images_per_day=9), MIDNIGHT + 1.5)
        standing = standing_var.get()
    finally:
        standing_var.reset(token)

    assert standing is not None
    assert standing.headers() == [
        (b"ratelimit-policy", b'"requests";q=60;w=60, "images";q=9;w=86400;qu="images"'),
        (b"ratelimit", b'"requests";r=59;t=1, "images";r=9;t=86399'),
    ]


@pytest.mark.parametrize(
    ("now", "seconds"), [(MIDNIGHT, DAY_S), (MIDNIGHT - 0.25, 1), (MIDNIGHT - 1, 1), (MIDNIGHT + 0.5, DAY_S)]
)
def test_a_day_ends_at_utc_midnight(now: float, seconds: int) -> None:
    assert seconds_left(now) == seconds


def test_final_states_are_those_that_free_a_place() -> None:
    """The script spells them."""
    assert {status.value for status in JobStatus if status.is_final} == {
        "succeeded",
        "failed",
        "canceled",
        "expired",
    }
