"""`python -m service`: settings from the environment, then serve until SIGTERM or SIGINT."""

import argparse
import sys

import uvicorn

from service.app import create_app
from service.errors import SettingsError
from service.logs import configure_logging
from service.openapi import render
from service.settings import load_settings

SHUTDOWN_S = 8
"""Open downloads and long polls get this long; the whole stack stops within 15 s."""


def main() -> int:
    """Exit code 2, with one line on stderr, for settings that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Serve the HTTP API.")
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document and stop")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        app = create_app(settings)
    except SettingsError as error:
        print(f"masan service: {error}", file=sys.stderr)
        return 2
    if arguments.openapi:
        sys.stdout.write(render(app))
        return 0
    configure_logging(settings.log_level)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
