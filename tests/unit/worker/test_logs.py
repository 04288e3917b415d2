import json
import logging

from worker.logs import JsonFormatter


def _line(**extra: object) -> dict[str, object]:
    record = logging.getLogger("worker.test").makeRecord(
        "worker.test", logging.INFO, __file__, 1, "chunk ended", (), None, extra=extra
    )
    line: dict[str, object] = json.loads(JsonFormatter().format(record))
    return line


def test_extra_values_become_fields() -> None:
    line = _line(job_id="job_1", seconds=1.5)

    assert (line["message"], line["level"], line["logger"]) == ("chunk ended", "INFO", "worker.test")
    assert (line["job_id"], line["seconds"]) == ("job_1", 1.5)


def test_what_json_cannot_say_is_spelled() -> None:
    assert _line(device=ValueError("x"))["device"] == "x"


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise KeyError("missing")
    except KeyError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, __file__, 1, "failed", (), None)
        import sys

        record.exc_info = sys.exc_info()

    text = JsonFormatter().format(record)

    assert "\n" not in text
    assert "KeyError: 'missing'" in json.loads(text)["exception"]
