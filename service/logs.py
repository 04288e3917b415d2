"""JSON log lines on stdout, each with the ids of the request and the trace it belongs to."""

import asyncio
import json
import logging
import re
import sys
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
from opentelemetry import trace

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


_SECRET = re.compile(r"(?<![A-Za-z0-9])(mk_|whsec_)[A-Za-z0-9+/_=-]{8,}")
"""An API key or a webhook's secret, wherever a client may have put it: a path, an id of its own."""


def masked(text: str) -> str:
    """The same without keys and secrets."""
    return _SECRET.sub(r"\1***", text) if "mk_" in text or "whsec_" in text else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what was given as `extra` becomes its own fields. Shows no secret."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := request_id_var.get():
            line["request_id"] = request_id
        if (span := trace.get_current_span().get_span_context()).is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return masked(_json(line))


def _json(line: dict[str, Any]) -> str:
    """In ASCII, whatever the stream it goes to takes."""
    try:
        text = orjson.dumps(line, default=str)
    except TypeError:  # an integer of more than 64 bits, half a surrogate pair
        return json.dumps(line, default=str)
    return text.decode() if text.isascii() else json.dumps(line, default=str)


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines; those of requests that end in the same turn of the event loop at once.

    A warning, and what another thread has to say, is out when the call returns.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._flushes_in: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)
            return
        loop = asyncio._get_running_loop()
        if record.levelno >= logging.WARNING or loop is None:
            self.flush()
        elif loop is not self._flushes_in:
            self._flushes_in = loop
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is waiting; whether anybody reads it is not this process's business."""
        with self.lock or nullcontext(), suppress(OSError, ValueError):
            self._flushes_in = None
            text = "".join([f"{line}\n" for line in self._lines])
            self._lines.clear()
            self.stream.write(text)
            self.stream.flush()


def configure_logging(level: str) -> None:
    """Send everything, uvicorn's own lines included, through the JSON formatter."""
    handler = LineHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # What no line shows need not be found out: the source of the call, its thread and its process.
    logging._srcfile = None  # as the logging HOWTO says
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Our middleware writes the access line, with the route and the request id.
    logging.getLogger("uvicorn.access").disabled = True
