"""The alerts: their rules and unit tests by promtool, and the runbook that each points to."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from masan.cli import app
from tests.expressions import RULES_FILE, expressions, rules
from tests.tools import run, tool

ROOT = Path(__file__).parents[2]
PROMETHEUS = RULES_FILE.parent
CASES = PROMETHEUS / "alerts.test.yml"
RUNBOOK = (ROOT / "docs/runbook.md").read_text()


def paragraphs() -> dict[str, str]:
    """Text below each heading of the runbook."""
    parts = re.split(r"^## (\w+)$", RUNBOOK, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_prometheus_accepts_its_configuration() -> None:
    promtool = tool("promtool", "Debian's prometheus")

    run(promtool, "check", "config", PROMETHEUS / "prometheus.yml")
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES_FILE)


def test_alerts_fire_where_they_should_and_nowhere_else() -> None:
    promtool = tool("promtool", "Debian's prometheus")

    run(promtool, "test", "rules", CASES)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    looks = [look for case in yaml.safe_load(CASES.read_text())["tests"] for look in case["alert_rule_test"]]

    names = {rule["alert"] for rule in rules()}
    assert {look["alertname"] for look in looks if look.get("exp_alerts")} == names
    assert {look["alertname"] for look in looks if not look.get("exp_alerts")} == names


def test_a_rule_that_never_fires_is_found_out(tmp_path: Path) -> None:
    (tmp_path / CASES.name).write_text(CASES.read_text())
    (tmp_path / RULES_FILE.name).write_text(RULES_FILE.read_text().replace("> 600", "> 600000"))

    with pytest.raises(AssertionError, match="MasanBacklog"):
        run(tool("promtool", "Debian's prometheus"), "test", "rules", tmp_path / CASES.name)


def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    records = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "expressions.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": records}]}))

    run(tool("promtool", "Debian's prometheus"), "check", "rules", file)


def test_every_alert_says_how_urgent_it_is_and_where_to_read_on() -> None:
    assert len(rules()) == 6
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}


def test_runbook_tells_of_each_alert_what_it_means_how_to_look_and_what_to_do() -> None:
    urgency = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}

    assert paragraphs().keys() == urgency.keys()
    for name, text in paragraphs().items():
        assert text.strip().startswith(urgency[name].capitalize()), name
        assert [word for word in ("**Means", "**Look:**", "**Do:**") if word not in text] == [], name


def test_runbook_names_commands_and_containers_that_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    compose = [
        yaml.safe_load((ROOT / name).read_text())["services"]
        for name in ("docker-compose.yml", "docker-compose.cpu.yml")
    ]
    containers = {name for services in compose for name in services}
    text = " ".join(RUNBOOK.split())

    groups = set(re.findall(r"\bmasan (models|keys|work|serve|up|verify|doctor|jobs?|cancel)\b", text))
    assert groups and groups <= commands.keys()
    for group, command in re.findall(r"\bmasan (models|keys) ([a-z]+)", text):
        assert command in commands[group].commands, command
    named = re.findall(r"docker compose (?:exec|restart|up -d|logs(?: --tail \d+)?) ([a-z]+)", text)
    assert named and set(named) <= containers
