"""One stack for all faults; what one fault broke is whole again before the next begins."""

import json
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.accounts import unaccounted_files, unaccounted_keys, unfinished
from tests.chaos.stack import (
    Process,
    ServiceProcess,
    Stack,
    digests,
    download,
    eventually,
    submit,
    wait_until_succeeded,
)

IMAGES = 800
"""Of the job that is disturbed: some six chunks of a second or two each."""

_measured: dict[str, str] = {}

Record = Callable[[str, float], None]
"""What happened, and the seconds until it was as if it had not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.chaos)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The times for docs/faults.md; as JSON too where CHAOS_REPORT names a file."""
    if not _measured:
        return
    terminalreporter.section("recovery")
    for what, seconds in _measured.items():
        terminalreporter.write_line(f"{seconds:>8} s  {what}")
    if report := os.environ.get("CHAOS_REPORT"):
        Path(report).write_text(json.dumps(_measured, indent=1))


@pytest.fixture
def record() -> Record:
    def keep(what: str, seconds: float) -> None:
        _measured[what] = f"{seconds:.1f}"

    return keep


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("chaos"))
    yield stack
    stack.close()


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a job gives that nothing happens to."""

    job_id: str
    archive: bytes
    digests: dict[str, str]


@pytest.fixture(scope="session")
def undisturbed(stack: Stack) -> Undisturbed:
    """`IMAGES` images of pro_b with seed 7, made by one worker that nobody touches."""
    [worker], service = stack.crew(1), stack.front()
    job_id = submit(service.http, IMAGES)
    wait_until_succeeded(service.http, job_id)
    archive = download(service.http, job_id)
    assert worker.is_running
    return Undisturbed(job_id, archive, digests(archive))


@pytest.fixture
def service(stack: Stack) -> ServiceProcess:
    """A service that answers."""
    return stack.front()


@pytest.fixture
def two_workers(stack: Stack, undisturbed: Undisturbed) -> list[Process]:
    """Two warm workers and no other, after the undisturbed run."""
    return stack.crew(2)


@pytest.fixture
def one_worker(stack: Stack, undisturbed: Undisturbed) -> Process:
    """One warm worker and no other, after the undisturbed run."""
    return stack.crew(1)[0]


@pytest.fixture(autouse=True)
def _nothing_is_left(stack: Stack, request: pytest.FixtureRequest) -> Iterator[None]:
    """After each fault: every job has ended, and all that is left is accounted for."""
    yield
    if request.node.stash.get(_FAILED, False):
        return  # the first failure is the one to be read
    stack.crew(1)
    stack.front()
    try:
        eventually(lambda: not unfinished(stack.redis), within_s=30)
    finally:
        assert unfinished(stack.redis) == {}
    assert unaccounted_keys(stack.redis) == []
    assert unaccounted_files(stack.redis, stack.results) == []


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report
