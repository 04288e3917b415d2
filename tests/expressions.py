"""The PromQL that we ship, and what can be told of an expression without evaluating it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES_FILE = DEPLOY / "prometheus" / "alerts.yml"

_NAME = re.compile(r"\bmasan_\w+")
_MATCHERS = re.compile(r"\s*\{([^}]*)\}")
_CALL = re.compile(r"([a-z_]+)\s*(?:(?:by|without)\s*\([^)]*\)\s*)?$")


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel. legend: Grafana's template of the series' names."""

    board: str
    panel: str
    expr: str
    legend: str

    @property
    def legend_labels(self) -> set[str]:
        return set(re.findall(r"\{\{(\w+)\}\}", self.legend))


@dataclass(frozen=True, slots=True)
class Selection:
    """A metric where an expression selects it. around: functions and aggregations, the innermost first."""

    metric: str
    labels: frozenset[str]
    around: tuple[str, ...]


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboards() -> list[dict[str, Any]]:
    """Every board, in the order of their files."""
    return [json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))]


def targets() -> list[Target]:
    """Every query of every panel, with the boards' variables set to All."""
    return [
        Target(board["title"], panel["title"], resolved(target["expr"]), target.get("legendFormat", ""))
        for board in dashboards()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


def annotations() -> list[str]:
    """Expressions of the boards' annotations."""
    return [resolved(note["expr"]) for board in dashboards() for note in board["annotations"]["list"]]


def expressions() -> list[str]:
    """Every expression there is."""
    return [rule["expr"] for rule in rules()] + [target.expr for target in targets()] + annotations()


def resolved(expr: str) -> str:
    """With every variable of a board replaced by what All means."""
    return re.sub(r"\$\{?\w+\}?", ".*", expr)


def selections(expr: str) -> Iterator[Selection]:
    """Where our metrics are selected, and what is done to each."""
    for found in _NAME.finditer(expr):
        matchers = _MATCHERS.match(expr, found.end())
        labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers[1]) if matchers else []
        yield Selection(found[0], frozenset(labels), tuple(_calls_around(expr, found.start())))


def _calls_around(expr: str, position: int) -> Iterator[str]:
    opened: list[int] = []
    for index, sign in enumerate(expr[:position]):
        if sign == "(":
            opened.append(index)
        elif sign == ")":
            opened.pop()
    for index in reversed(opened):
        if call := _CALL.search(expr[:index]):
            yield call[1]


def grouped_by(expr: str) -> set[str]:
    """Every label that is grouped or joined by."""
    lists = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expr)
    return {label.strip() for each in lists for label in each.split(",") if label.strip()}
