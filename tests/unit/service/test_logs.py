"""Log lines are JSON and carry the request's id."""

import asyncio
import io
import json
import logging
import sys

from service.logs import JsonFormatter, LineHandler, request_id_var


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


def test_a_line_is_ascii() -> None:
    record = logging.LogRecord("x", logging.INFO, "f.py", 1, "größer", (), None)

    text = JsonFormatter().format(record)

    assert text.isascii()
    assert json.loads(text)["message"] == "größer"


def test_what_json_has_no_word_for_is_written_all_the_same() -> None:
    record = logging.LogRecord("x", logging.INFO, "f.py", 1, "odd", (), None)
    record.large, record.half, record.kind = 2**80, "\ud800", object

    text = JsonFormatter().format(record)

    line = json.loads(text)
    assert text.isascii()
    assert (line["large"], line["half"], line["kind"]) == (2**80, "\ud800", "<class 'object'>")


class _Writes(io.StringIO):
    """A stream that knows what it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        self.texts.append(text)
        return super().write(text)


def _logger(stream: io.StringIO) -> logging.Logger:
    logger = logging.Logger("lines")
    logger.addHandler(LineHandler(stream))
    return logger


def test_lines_of_one_turn_of_the_event_loop_are_written_together() -> None:
    stream = _Writes()
    logger = _logger(stream)

    async def turns() -> list[list[str]]:
        logger.info("a")
        logger.info("b")
        held = list(stream.texts)
        await asyncio.sleep(0)
        logger.info("c")
        await asyncio.sleep(0)
        return [held, list(stream.texts)]

    assert asyncio.run(turns()) == [[], ["a\nb\n", "c\n"]]


def test_a_warning_is_out_at_once_after_what_came_before() -> None:
    stream = _Writes()
    logger = _logger(stream)

    async def turn() -> str:
        logger.info("a")
        logger.warning("b")
        return stream.getvalue()

    assert asyncio.run(turn()) == "a\nb\n"


def test_outside_the_event_loop_every_line_is_out_at_once() -> None:
    stream = _Writes()

    _logger(stream).info("a")

    assert stream.texts == ["a\n"]


def test_a_reader_that_has_gone_disturbs_nobody() -> None:
    stream = _Writes()
    logger = _logger(stream)
    stream.close()

    logger.info("a")
