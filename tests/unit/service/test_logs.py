"""Log lines are JSON and carry the request's id."""

import json
import logging
import sys

from service.logs import JsonFormatter, request_id_var


def test_line_has_extra_fields_and_request_id() -> None:
    record = logging.LogRecord("service.x", logging.INFO, "f.py", 1, "job %s", ("made",), None)
    record.job_id = "job_1"
    token = request_id_var.set("r-1")

    line = json.loads(JsonFormatter().format(record))
    request_id_var.reset(token)

    assert (line["message"], line["level"], line["job_id"], line["request_id"]) == (
        "job made",
        "INFO",
        "job_1",
        "r-1",
    )


def test_exception_stays_on_one_line() -> None:
    try:
        raise ValueError("odd\nvalue")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "failed", (), sys.exc_info())

    text = JsonFormatter().format(record)

    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


def test_no_key_and_no_secret_is_shown_wherever_it_was_put() -> None:
    key, secret = "mk_GbQ1-_x9" + "a" * 32, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    record = logging.LogRecord("x", logging.INFO, "f.py", 1, "at /jobs/%s", (key,), None)
    record.path = f"/jobs/{key}?secret={secret}"
    record.format = "task_list"

    text = JsonFormatter().format(record)

    assert key[3:] not in text
    assert secret[6:] not in text
    assert json.loads(text)["path"] == "/jobs/mk_***?secret=whsec_***"
    assert json.loads(text)["format"] == "task_list"
