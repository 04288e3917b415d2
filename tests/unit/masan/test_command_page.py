"""docs/cli.md against the commands themselves."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from masan.cli import _load_training_app, app

PAGE = (Path(__file__).parents[3] / "docs/cli.md").read_text()
TRAINING = ("train", "publish", "evaluate", "reference", "report", "reproduce", "data")


def leaves(command: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Every command that does something, with its long options."""
    options = [
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and name != "--help"
    ]
    yield path, options
    for name, sub in getattr(command, "commands", {}).items():
        if path != "masan" or name not in TRAINING:
            yield from leaves(sub, f"{path} {name}")


def tree() -> list[tuple[str, list[str]]]:
    found = list(leaves(typer.main.get_command(app), "masan"))
    for name in TRAINING:
        group: Any = typer.main.get_command(_load_training_app(name))
        found += leaves(group.commands[name], f"masan {name}")
    return found


@pytest.mark.parametrize(("path", "options"), tree())
def test_every_command_and_option_is_on_the_page(path: str, options: list[str]) -> None:
    section = re.search(rf"^#+ `{re.escape(path)}`.*?(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)

    assert section is not None, f"no section `{path}`"
    assert [name for name in options if f"`{name}" not in section[0] and f"/{name}`" not in section[0]] == []


def test_the_page_names_no_other_command_or_option() -> None:
    known = dict(tree())

    for path, section in re.findall(r"^#+ `(masan[^`]*)`\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL):
        assert path in known
        named = set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE))
        assert named - set(known[path]) == set(), path
