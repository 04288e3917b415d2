"""JSON log lines on stdout, each with the ids of the request and the trace it belongs to."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


_SECRET = re.compile(r"(?<![A-Za-z0-9])(mk_|whsec_)[A-Za-z0-9+/_=-]{8,}")
"""An API key or a webhook's secret, wherever a client may have put it: a path, an id of its own."""


def masked(text: str) -> str:
    """The same without keys and secrets."""
    return _SECRET.sub(r"\1***", text)


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
        return masked(json.dumps(line, default=str))


def configure_logging(level: str) -> None:
    """Send everything, uvicorn's own lines included, through the JSON formatter."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # What no line shows need not be found out: the source of the call, its thread and its process.
    logging._srcfile = None  # as the logging HOWTO says
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Our middleware writes the access line, with the route and the request id.
    logging.getLogger("uvicorn.access").disabled = True
