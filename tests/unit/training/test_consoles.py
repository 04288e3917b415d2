import io
import sys

import pytest

from model_store.report import QualityReport
from tests.full_report import full_report
from training.consoles import open_console
from training.evaluation.tables import report_tables

CLASSES = tuple(f"a_class_with_quite_a_long_name_{index}" for index in range(12))


@pytest.fixture
def report() -> QualityReport:
    """Of so many classes that no usual terminal holds its tables."""
    return full_report(classes=CLASSES)


def printed(report: QualityReport, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> list[str]:
    monkeypatch.setattr(sys, "stdout", stream)
    console = open_console()
    for part in report_tables(report):
        console.print(part)
    return stream.getvalue().splitlines()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_tables_with_nothing_cut(report: QualityReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    lines = printed(report, monkeypatch, io.StringIO())

    heads = [line for line in lines if CLASSES[0] in line and "┃" in line]
    assert len(heads) == len(report.extractors) + 1
    assert all(slug in head for head in heads for slug in CLASSES)
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) > 300


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_columns_of_the_environment_win(
    report: QualityReport, monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    assert max(map(len, printed(report, monkeypatch, stream()))) <= 100


def test_a_terminal_has_a_width_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    assert open_console().width < 1000 <= open_console(err=True).width
