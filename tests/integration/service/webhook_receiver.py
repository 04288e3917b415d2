"""For tests of webhooks: a real HTTP server that receives them, and a sender to run."""

import http.server
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from masan.webhook_sender import WebhookSender
from masan.webhook_settings import WebhookSettings
from masan.webhook_worker import WebhookProcess
from tests.integration.service.harness import Service
from worker.contract import keys
from worker.contract.webhook_target import Networks, parse_networks

LOOPBACK: Networks = parse_networks("127.0.0.0/8")


@dataclass
class Receiver:
    """What came to a real HTTP server. answers: statuses to give, 204 afterwards; 0: never answer."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=of-the-lab"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.requests]

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + 15
        while len(self.requests) < count:
            assert time.monotonic() < deadline, "nothing came"
            time.sleep(0.02)


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append((self.path, headers, body))
            status = receiver.answers.pop(0) if receiver.answers else 204
            if status == 0:
                while not receiver.released.wait(0.1):  # a byte now and then: no single read times out
                    self.wfile.write(b"H")
                return
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A peer that was killed is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.released.set()
            server.shutdown()
            thread.join(5)


def ask(service: Service, webhook: object, **parameters: Any) -> str:
    """Id of an accepted job with a webhook."""
    asked: dict[str, Any] = {"class": "pro_b", "n": 10}
    response = service.client.post("/generate", params=asked | parameters, json={"webhook": webhook})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def deliver(service: Service, networks: Networks = LOOPBACK, **changes: Any) -> None:
    """Make every attempt that is due now."""
    settings = WebhookSettings(redis_url=service.settings.redis_url)
    sender = WebhookSender(service.redis, networks, clock=service.clock, **changes)
    assert WebhookProcess(settings, sender).run(burst=True) == 0


def record(service: Service, job_id: str) -> dict[str, str]:
    kept: dict[str, str] = service.redis.hgetall(keys.webhook_key(job_id))  # type: ignore[assignment]
    return kept


def outcomes(service: Service) -> dict[str, float]:
    return {
        outcome: service.metric(f'masan_webhook_deliveries_total{{outcome="{outcome}"}}')
        for outcome in ("delivered", "retried", "given_up", "refused")
    }


@contextmanager
def process(service: Service, module: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = os.environ | {
        "MASAN_REDIS_URL": service.settings.redis_url,
        "MASAN_MODEL_STORE_URL": service.settings.model_store_url,
        "MASAN_WEBHOOK_NETWORKS": "127.0.0.0/8",
    }
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()
