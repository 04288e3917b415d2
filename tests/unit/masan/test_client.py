"""The client against a real, scripted HTTP server on loopback."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from masan.client import Client, Job
from masan.errors import ApiError, ArchiveCorruptedError, JobFailedError, ServerUnreachableError
from masan.processes import free_port
from tests.unit.masan.test_archive import change_a_byte, make_archive

JOB = {
    "id": "job_1",
    "status": "queued",
    "n": 3,
    "seed": "18446744073709551615",
    "model": {"name": "b-all", "version": "1", "digest": "sha256:ab"},
    "progress": {"done": 0, "total": 3, "images_per_second": None, "eta_seconds": None},
}


class ScriptedServer:
    """Answers each request by the next function of its script; the last one stays."""

    def __init__(self, *script: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        answers = list(script)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                server.asked.append((self.command, self.path, dict(self.headers)))
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = _answer  # noqa: N815 - the names http.server asks for

            def log_message(self, *_: Any) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def answer(status: int, body: dict[str, Any]) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        content = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return send


def job(status: str, done: int, **more: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    return answer(200, {**JOB, "status": status, "progress": {"done": done}, **more})


def send_file(content: bytes, stop_at: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """Serve ranges of `content`; hang up after `stop_at` bytes of it."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        handler.send_response(206 if asked else 200)
        handler.send_header("Accept-Ranges", "bytes")
        if asked:
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.send_header("ETag", '"e1"')
        handler.send_header("Content-Length", str(len(content) - first))
        handler.end_headers()
        handler.wfile.write(content[first:stop_at])
        handler.close_connection = True

    return send


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return make_archive(tmp_path / "source.zip").read_bytes()


def test_generate_sends_only_what_was_chosen() -> None:
    with ScriptedServer(answer(202, JOB)) as server, Client(server.url, "a key") as client:
        made = client.generate("pro_b", 3, seed=5)

    method, path, headers = server.asked[0]
    assert (method, path) == ("POST", "/generate?class=pro_b&n=3&seed=5")
    assert headers["Authorization"] == "Bearer a key"
    assert (made.id, made.n, made.seed, made.model) == ("job_1", 3, 2**64 - 1, "b-all@1")


def test_every_option_is_sent_where_it_belongs() -> None:
    bodies: list[Any] = []

    def read_and_answer(handler: BaseHTTPRequestHandler) -> None:
        bodies.append(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))
        answer(202, JOB)(handler)

    with ScriptedServer(read_and_answer) as server, Client(server.url) as client:
        client.generate(
            mix={"pro_b": 2, "benign": 1},
            image_format="webp",
            quality=80,
            gate="strict",
            priority="batch",
            deadline_s=60,
            metadata={"study": "b"},
            idempotency_key="mine",
        )

    _, path, headers = server.asked[0]
    assert path == "/generate?image_format=webp&quality=80&gate=strict&priority=batch&deadline=60"
    assert bodies == [{"mix": {"pro_b": 2, "benign": 1}, "metadata": {"study": "b"}}]
    assert headers["Idempotency-Key"] == "mine"


def test_generate_is_repeated_under_its_key_until_it_is_answered() -> None:
    conflict = answer(409, {"code": "idempotency_conflict", "title": "being answered"})
    with ScriptedServer(hang_up, conflict, answer(202, JOB)) as server, Client(server.url) as client:
        client.generate("pro_b", 3)
        client.generate("pro_b", 3)

    used = [headers["Idempotency-Key"] for _, _, headers in server.asked]
    assert len(used) == 4
    assert len(set(used[:3])) == 1
    assert used[3] != used[0]


def test_another_refusal_is_not_repeated() -> None:
    refused = answer(422, {"code": "idempotency_mismatch", "title": "another request"})
    with (
        ScriptedServer(refused) as server,
        Client(server.url) as client,
        pytest.raises(ApiError, match="another request"),
    ):
        client.generate("pro_b", 3, idempotency_key="k")

    assert len(server.asked) == 1


def stream(*events: tuple[str, str, str]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Send (id, name, data) events with a comment before each, then hang up."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for event_id, name, data in events:
            handler.wfile.write(f": keep-alive\n\nevent: {name}\ndata: {data}\nid: {event_id}\n\n".encode())
        handler.close_connection = True

    return send


def test_events_go_on_where_the_connection_broke() -> None:
    first = stream(("1-0", "status", '{"status":"queued"}'), ("2-0", "progress", '{"done":1}'))
    last = stream(("3-0", "done", '{"status":"succeeded"}'))
    with ScriptedServer(first, hang_up, last) as server, Client(server.url) as client:
        seen = list(client.events("job_1"))

    assert [(event.name, event.id) for event in seen] == [
        ("status", "1-0"),
        ("progress", "2-0"),
        ("done", "3-0"),
    ]
    assert seen[1].data == {"done": 1}
    assert [headers.get("Last-Event-ID") for _, _, headers in server.asked] == [None, "2-0", "2-0"]


def test_nothing_follows_the_last_event() -> None:
    with ScriptedServer(answer(204, {})) as server, Client(server.url) as client:
        assert list(client.events("job_1", after="9-0")) == []

    assert server.asked[0][2]["Last-Event-ID"] == "9-0"


def test_events_of_no_job_are_an_error() -> None:
    with (
        ScriptedServer(answer(404, {"code": "not_found", "title": "no such job"})) as server,
        Client(server.url) as client,
        pytest.raises(ApiError, match="no such job"),
    ):
        list(client.events("job_1"))


def test_retry_gives_the_queued_job() -> None:
    script = (answer(200, {**JOB, "attempt": 1}), answer(202, {**JOB, "attempt": 2}))
    with ScriptedServer(*script) as server, Client(server.url) as client:
        assert client.retry("job_1").body["attempt"] == 2

    assert server.asked[1][:2] == ("POST", "/jobs/job_1/retry")


def test_retry_whose_answer_was_lost_is_looked_up() -> None:
    script = (answer(200, {**JOB, "attempt": 1}), hang_up, answer(200, {**JOB, "attempt": 2}))
    with ScriptedServer(*script) as server, Client(server.url) as client:
        assert client.retry("job_1").body["attempt"] == 2

    assert [method for method, _, _ in server.asked] == ["GET", "POST", "GET"]


def test_wait_follows_the_events_and_looks_at_the_end() -> None:
    seen: list[tuple[str, int]] = []
    first = stream(("1-0", "status", '{"status":"running"}'), ("2-0", "progress", '{"done":2}'))
    last = stream(("3-0", "done", '{"status":"succeeded"}'))
    script = (job("queued", 0), first, last, job("succeeded", 3))
    with ScriptedServer(*script) as server, Client(server.url) as client:
        done = client.wait("job_1", lambda now: seen.append((now.status, now.done)))

    assert list(dict.fromkeys(seen)) == [("queued", 0), ("running", 0), ("running", 2), ("succeeded", 3)]
    assert done.is_final
    paths = ["/jobs/job_1", "/jobs/job_1/events", "/jobs/job_1/events", "/jobs/job_1"]
    assert [path for _, path, _ in server.asked] == paths
    assert server.asked[2][2]["Last-Event-ID"] == "2-0"


def test_wait_long_polls_where_there_are_no_events() -> None:
    seen: list[tuple[str, int]] = []
    no_stream = answer(404, {"code": "not_found", "title": "no such page"})
    script = (job("queued", 0), no_stream, job("running", 1), job("running", 2), job("succeeded", 3))
    with ScriptedServer(*script) as server, Client(server.url) as client:
        client.wait("job_1", lambda now: seen.append((now.status, now.done)))

    assert seen == [("queued", 0), ("running", 1), ("running", 2), ("succeeded", 3)]
    prefers = [headers.get("Prefer") for _, _, headers in server.asked]
    assert prefers == [None, None, None, "wait=10", "wait=10"]


def test_wait_polls_where_a_proxy_makes_something_else_of_the_events() -> None:
    script = (job("queued", 0), answer(200, {"a": "page"}), job("succeeded", 3))
    with ScriptedServer(*script) as server, Client(server.url) as client:
        assert client.wait("job_1").status == "succeeded"


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def test_wait_outlasts_a_restart_of_the_service() -> None:
    with ScriptedServer(hang_up, job("succeeded", 3)) as server, Client(server.url) as client:
        assert client.wait("job_1").done == 3


def test_a_failed_job_raises_its_reason() -> None:
    failed = job("failed", 1, error={"code": "gpu_lost", "message": "the device is gone"})
    with (
        ScriptedServer(failed) as server,
        Client(server.url) as client,
        pytest.raises(JobFailedError, match="job job_1 failed: the device is gone"),
    ):
        client.wait("job_1")


def test_wait_gives_up_in_time() -> None:
    with (
        ScriptedServer(job("running", 1)) as server,
        Client(server.url) as client,
        pytest.raises(TimeoutError, match="job job_1 is running"),
    ):
        client.wait(Job.from_body(JOB), timeout_s=0.1)


def test_an_error_answer_carries_its_problem() -> None:
    problem = {"title": "Invalid", "detail": "n: too large", "code": "n_too_large", "errors": []}
    with (
        ScriptedServer(answer(422, problem)) as server,
        Client(server.url) as client,
        pytest.raises(ApiError, match="n: too large") as caught,
    ):
        client.generate("pro_b", 10**9)

    assert caught.value.problem["code"] == "n_too_large"
    assert caught.value.exit_code == 2


def test_download_is_verified_and_renamed(tmp_path: Path, archive: bytes) -> None:
    with ScriptedServer(send_file(archive)) as server, Client(server.url) as client:
        path = client.download("job_1", tmp_path / "result.zip")

    assert path.read_bytes() == archive
    assert not path.with_name("result.zip.part").exists()


def test_download_goes_on_where_the_connection_broke(tmp_path: Path, archive: bytes) -> None:
    with (
        ScriptedServer(send_file(archive, stop_at=100), send_file(archive)) as server,
        Client(server.url) as client,
    ):
        path = client.download("job_1", tmp_path / "result.zip")

    assert path.read_bytes() == archive
    resumed = server.asked[1][2]
    assert resumed["Range"].startswith("bytes=")
    assert resumed["Range"] != "bytes=0-"
    assert resumed["If-Range"] == '"e1"'


def test_download_refuses_and_removes_what_is_corrupted(tmp_path: Path) -> None:
    spoilt = make_archive(tmp_path / "source.zip", edit=change_a_byte).read_bytes()
    with (
        ScriptedServer(send_file(spoilt)) as server,
        Client(server.url) as client,
        pytest.raises(ArchiveCorruptedError, match="its sha256"),
    ):
        client.download("job_1", tmp_path / "result.zip")

    assert [path.name for path in tmp_path.iterdir()] == ["source.zip"]


def test_nobody_at_the_address_is_one_clear_error() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with Client(url) as client, pytest.raises(ServerUnreachableError, match=f"no answer from {url}"):
        client.generate("pro_b", 1)


def test_a_base_url_without_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="base_url: 'localhost:8000'"):
        Client("localhost:8000")
