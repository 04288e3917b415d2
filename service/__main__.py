"""`python -m service`: settings from the environment, then serve until SIGTERM or SIGINT."""

import argparse
import gc
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn

from service.app import create_app
from service.errors import SettingsError
from service.http.openapi import render
from service.logs import configure_logging
from service.settings import load_settings
from service.transport.http_protocol import BoundedProtocol

_SWITCH_S = 0.0005
"""How long a thread that computes keeps the others waiting; Python's own 5 ms show in the tail."""


def main() -> int:
    """Exit code 2, with one line on stderr, for settings that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Serve the HTTP API.")
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document and stop")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        app = create_app(settings)
        if not arguments.openapi:
            app.state.services.certificates.signing_key.check()
    except SettingsError as error:
        print(f"masan service: {error}", file=sys.stderr)
        return 2
    if arguments.openapi:
        sys.stdout.write(render(app))
        return 0
    configure_logging(settings.log_level)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
        http=BoundedProtocol,
    )
    # The reaper works in a thread of its own: what is being answered waits for it no longer than this.
    sys.setswitchinterval(_SWITCH_S)
    server = _Server(config, app.state.services.stopping, settings.shutdown_delay_s)
    server.run()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Tells the application of a signal at once: long polls end, /readyz turns to 503.

    The process ends with exit code 0 then, not by the signal. delay_s: how long it goes on accepting
    connections, so that load balancers see /readyz; a second signal ends that.
    """

    def __init__(self, config: uvicorn.Config, stopping: threading.Event, delay_s: float) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._delay_s = delay_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As Server's. What is there by then stays, and is not searched for garbage: that took 50 ms."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # as the server calls it
        is_first = not self._stopping.is_set()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self._stopping.set()
        if is_first and self._delay_s > 0:
            delay = threading.Timer(self._delay_s, self._close)
            delay.daemon = True
            delay.start()
        else:
            self._close()

    def _close(self) -> None:
        self.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
