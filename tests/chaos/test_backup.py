"""A backup taken in the middle of a job, and what comes of it: the very commands of docs/backup.md.

In place of its folders and socket stand those of the stack; what `systemctl` and `chown` do, the test does.
"""

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.chaos.conftest import IMAGES, Record
from tests.chaos.stack import Stack, digests, done, download, eventually, submit, wait_until_succeeded
from tests.tools import ROOT, run

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One of our own: its disks are wiped."""
    stack = Stack(tmp_path_factory.mktemp("backup"))
    yield stack
    stack.close()


@pytest.fixture
def documented(stack: Stack, tmp_path: Path) -> Callable[[str], None]:
    """Runs the commands below a heading of docs/backup.md."""
    client = shutil.which("valkey-cli") or shutil.which("redis-cli")
    if client is None:
        pytest.skip("valkey-cli is not installed; it comes with Debian's valkey-tools or redis-tools")
    server = urlsplit(stack.valkey.url)
    places = {
        "valkey-cli -s /run/masan-valkey/valkey.sock": f"{client} -p {server.port}",
        "/var/backups/masan": str(tmp_path / "backup"),
        "/var/lib/masan-valkey": str(stack.folder / "valkey"),
        "/var/lib/masan": str(stack.folder),
        "models results keys": "store results run",
    }
    page = (ROOT / "docs/backup.md").read_text()

    stack.redis.config_set("repl-diskless-sync-delay", 0)  # as deploy/systemd/valkey.conf has it

    def run_below(heading: str) -> None:
        found = re.search(rf"^### {heading}\n.*?```sh\n(.*?)```", page, flags=re.MULTILINE | re.DOTALL)
        assert found
        lines = [line for line in found[1].splitlines() if not line.startswith(("systemctl ", "chown "))]
        script = "\n".join(lines)
        for documented, ours in places.items():
            script = script.replace(documented, ours)
        assert "/var/" not in script and "/run/masan" not in script
        run("sh", "-euc", script, REDISCLI_AUTH=server.password or "")

    return run_below


def lose(stack: Stack, *disks: str) -> None:
    """Every process dies, and these folders are emptied."""
    stack.valkey_process.signal(signal.SIGKILL)
    stack.valkey_process.wait(time.monotonic() + 10)
    for process in stack.processes:
        process.kill()
    for name in disks:
        shutil.rmtree(stack.folder / name)
        (stack.folder / name).mkdir(mode=0o700)


def start_again(stack: Stack) -> httpx.Client:
    """Valkey, a service and a worker on what is there."""
    stack.restart_valkey()
    stack.end(*stack.processes)
    stack.crew(1)
    return stack.front().http


def forget(stack: Stack, job_id: str) -> None:
    """Files of a job that the queue does not know: the service would sweep them after an hour."""
    shutil.rmtree(stack.results / job_id)


def test_restored_in_the_middle_of_a_job(
    stack: Stack, documented: Callable[[str], None], record: Record
) -> None:
    [_worker], http = stack.crew(1), stack.front().http
    finished = submit(http, 32, seed=1)
    wait_until_succeeded(http, finished)
    archive = download(http, finished)
    running = submit(http, IMAGES)
    eventually(lambda: done(http, running))

    began = time.monotonic()
    documented("Back up")
    record("Backup of queue and stores in the middle of a job: until it was taken", time.monotonic() - began)
    assert 0 < done(http, running) < IMAGES, "the backup was not taken in the middle of the job"
    wait_until_succeeded(http, running)
    undisturbed = digests(download(http, running))
    later = submit(http, 8, seed=2)
    wait_until_succeeded(http, later)

    lose(stack, "valkey", "store", "results")
    began = time.monotonic()
    documented("Restore")
    http = start_again(stack)
    assert stack.done(running) < IMAGES
    wait_until_succeeded(http, running)
    record(
        "Everything lost and restored: until the job of the backup had succeeded", time.monotonic() - began
    )

    assert download(http, finished) == archive
    assert digests(download(http, running)) == undisturbed
    assert http.get(f"/jobs/{later}").status_code == httpx.codes.NOT_FOUND


def test_older_queue_before_newer_stores(stack: Stack, documented: Callable[[str], None]) -> None:
    """The queue alone goes back: what has been made, and unmade, since does no harm."""
    [_worker], http = stack.crew(1), stack.front().http
    deleted = submit(http, 16, seed=3)
    wait_until_succeeded(http, deleted)
    running = submit(http, IMAGES, seed=4)
    eventually(lambda: done(http, running))
    documented("Back up")
    assert done(http, running) < IMAGES
    wait_until_succeeded(http, running)
    archive = digests(download(http, running))
    later = submit(http, 8, seed=5)
    wait_until_succeeded(http, later)
    assert http.delete(f"/jobs/{deleted}").status_code == httpx.codes.NO_CONTENT
    eventually(lambda: not (stack.results / deleted).exists())

    lose(stack, "valkey")
    newer = stack.results.rename(stack.folder / "newer")
    documented("Restore")
    shutil.rmtree(stack.results)
    newer.rename(stack.results)
    http = start_again(stack)

    wait_until_succeeded(http, running)
    assert digests(download(http, running)) == archive
    lost = http.get(f"/jobs/{deleted}/result")
    assert (lost.status_code, lost.json()["code"]) == (500, "result_lost")
    assert http.delete(f"/jobs/{deleted}").status_code == httpx.codes.NO_CONTENT
    assert http.get(f"/jobs/{later}").status_code == httpx.codes.NOT_FOUND
    forget(stack, later)
