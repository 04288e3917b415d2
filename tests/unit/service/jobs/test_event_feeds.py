"""A feed holds the newest events; who is further back reads the stream."""

import asyncio

from service.jobs.event_feeds import BATCH_EVENTS, Event, Feed


def events(start: int, stop: int) -> list[Event]:
    return [Event(f"5-{i}", "progress", b"") for i in range(start, stop)]


def test_nothing_is_claimed_before_the_reader_is_there() -> None:
    feed = Feed("job_1")

    assert not feed.has_all_after("9-0")
    feed.begin("5-0")
    assert feed.has_all_after("5-0")
    assert not feed.has_all_after("4-9")


def test_what_follows_is_given_in_order_a_batch_at_a_time() -> None:
    feed = Feed("job_1")
    feed.begin("5-0")
    feed.add(events(1, BATCH_EVENTS + 11))

    first = feed.since("5-0")
    rest = feed.since(first[-1].id)

    assert first + rest == events(1, BATCH_EVENTS + 11)
    assert len(first) == BATCH_EVENTS
    assert feed.since(rest[-1].id) == []


def test_old_events_leave_and_are_not_claimed() -> None:
    feed = Feed("job_1")
    feed.begin("5-0")
    for start in range(1, 1000, 100):
        feed.add(events(start, start + 100))

    assert not feed.has_all_after("5-0")
    assert feed.floor is not None
    assert feed.has_all_after(feed.floor)
    assert feed.since(feed.floor)[0].id == f"5-{int(feed.floor[2:]) + 1}"


def test_waiting_ends_with_an_event_or_with_time() -> None:
    async def wait() -> tuple[float, float]:
        feed, loop = Feed("job_1"), asyncio.get_running_loop()
        feed.begin("5-0")
        started = loop.time()
        await feed.wait(0.05)
        alone = loop.time() - started
        loop.call_later(0.01, feed.add, events(1, 2))
        await asyncio.gather(*(feed.wait(5) for _ in range(3)))
        return alone, loop.time() - started

    alone, together = asyncio.run(wait())
    assert 0.03 < alone < 1
    assert together < 2
