"""Commands of one moment travel together; none suffers from another, and a lost connection is replaced."""

import asyncio
import time

import pytest
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from masan.processes import free_port
from service.commands import Commands, Script

pytestmark = pytest.mark.integration

ECHO = Script("return ARGV[1]")


def commands(url: str, errors: list[int] | None = None) -> Commands:
    return Commands(
        url, retries=1, timeout_s=2.0, on_error=lambda: None if errors is None else errors.append(1)
    )


def test_many_at_once_share_round_trips_and_get_their_own_answers(redis_url: str, redis: "Redis") -> None:
    async def ask() -> list[str]:
        asked = commands(redis_url)
        answers = await asyncio.gather(*(asked.call(ECHO, [], [f"{i}"]) for i in range(500)))
        await asked.aclose()
        return list(answers)

    reads = redis.info("stats")["total_reads_processed"]
    assert asyncio.run(ask()) == [f"{i}" for i in range(500)]
    assert redis.info("stats")["total_reads_processed"] - reads < 50


def test_a_script_that_redis_forgot_is_sent_again(redis_url: str, redis: "Redis") -> None:
    async def ask() -> list[str]:
        asked = commands(redis_url)
        first = await asked.call(ECHO, [], ["a"])
        redis.script_flush()
        second = await asked.call(ECHO, [], ["b"])
        await asked.aclose()
        return [first, second]

    assert asyncio.run(ask()) == ["a", "b"]


def test_one_wrong_command_fails_alone(redis_url: str) -> None:
    async def ask() -> list[object]:
        asked = commands(redis_url)
        every = (asked.run("SET", "a", 1), asked.run("HGET", "a", "b"), asked.run("GET", "a"))
        answers = await asyncio.gather(*every, return_exceptions=True)
        await asked.aclose()
        return list(answers)

    fine, wrong, read = asyncio.run(ask())
    assert fine
    assert isinstance(wrong, ResponseError)
    assert read == "1"


def test_a_lost_connection_is_replaced_and_told(redis_url: str, redis: "Redis") -> None:
    errors: list[int] = []

    async def ask() -> str:
        asked = commands(redis_url, errors)
        await asked.run("PING")
        redis.client_kill_filter(_type="normal", skipme=True)
        answer: str = await asked.call(ECHO, [], ["again"])
        await asked.aclose()
        return answer

    assert asyncio.run(ask()) == "again"
    assert errors


def test_no_answer_in_time_is_an_error_soon(redis_url: str, redis: "Redis") -> None:
    errors: list[int] = []

    async def ask() -> float:
        asked = Commands(redis_url, retries=1, timeout_s=0.2, on_error=lambda: errors.append(1))
        await asked.run("PING")
        redis.client_pause(2_500)
        began = time.monotonic()
        for _ in range(2):  # the second time it has to connect first, which is not answered either
            with pytest.raises(RedisTimeoutError, match="no answer within"):
                await asked.run("PING")
        waited = time.monotonic() - began
        await asyncio.sleep(2.5 - waited)
        assert await asked.run("ECHO", "again") == "again"
        await asked.aclose()
        return waited

    assert asyncio.run(ask()) < 2.4
    assert errors


def test_nobody_there_is_told_after_as_many_tries_as_wanted() -> None:
    errors: list[int] = []

    async def ask() -> None:
        asked = commands(f"redis://127.0.0.1:{free_port('127.0.0.1')}/0", errors)
        with pytest.raises(RedisError):
            await asked.run("PING")
        await asked.aclose()

    asyncio.run(ask())

    assert len(errors) == 2


def test_nobody_there_is_an_error_for_each() -> None:
    async def ask() -> list[object]:
        asked = commands(f"redis://127.0.0.1:{free_port('127.0.0.1')}/0")
        answers = await asyncio.gather(*(asked.run("PING") for _ in range(3)), return_exceptions=True)
        await asked.aclose()
        return list(answers)

    assert [isinstance(answer, RedisError) for answer in asyncio.run(ask())] == [True] * 3


def test_a_request_that_went_away_disturbs_nobody(redis_url: str) -> None:
    async def ask() -> str:
        asked = commands(redis_url)
        gone = asyncio.create_task(asked.run("GET", "a"))
        stays = asyncio.create_task(asked.run("ECHO", "here"))
        await asyncio.sleep(0)
        gone.cancel()
        answer: str = await stays
        await asked.aclose()
        return answer

    assert asyncio.run(ask()) == "here"
