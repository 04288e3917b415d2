"""`python -m service`: settings from the environment, then serve until SIGTERM or SIGINT."""

import argparse
import sys
import threading
from types import FrameType

import uvicorn

from service.app import create_app
from service.errors import SettingsError
from service.logs import configure_logging
from service.openapi import render
from service.settings import load_settings

SHUTDOWN_S = 8
"""Open downloads get this long; the whole stack stops within 15 s."""


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
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = _Server(config, app.state.services.stopping)
    server.run()
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Tells the application of a signal at once: long polls end, /readyz turns to 503."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


if __name__ == "__main__":
    sys.exit(main())
