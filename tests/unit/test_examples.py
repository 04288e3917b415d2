"""The commands that the documents show, held against what there is. tests/e2e/test_examples.py runs them."""

import re
import shlex
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer

from masan.cli import _load_training_app, app
from service.app import create_app
from service.settings import ServiceSettings
from tests.documents import PAGES, Example, examples
from tests.unit.masan.test_command_page import TRAINING

COMMANDS = [each for page in PAGES for each in examples(page, "masan")]
REQUESTS = [each for page in PAGES for each in examples(page, "curl")]
_ENDS = {"|", "&&", "||", ">", "<"}


def test_there_are_examples() -> None:
    assert len(COMMANDS) > 40
    assert len(REQUESTS) > 10


@pytest.mark.parametrize("example", COMMANDS, ids=str)
def test_every_command_and_option_is_known(example: Example) -> None:
    words = shlex.split(example.text)[1:]
    words = words[: next((place for place, word in enumerate(words) if word in _ENDS), len(words))]
    command: Any = typer.main.get_command(app)
    if words[0] in TRAINING:
        command = typer.main.get_command(_load_training_app(words[0]))
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        assert words[0] in command.commands
        command = command.commands[words.pop(0)]

    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}

    assert [word for word in words if word.startswith("-") and word not in known] == []


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(tmp_path_factory.mktemp("app"))
    settings = ServiceSettings(model_store_url=folder, result_store_url=folder)
    found: dict[str, Any] = create_app(settings).openapi()["paths"]
    return found


@pytest.mark.parametrize("example", REQUESTS, ids=str)
def test_every_request_and_parameter_is_known(example: Example, paths: dict[str, Any]) -> None:
    words = shlex.split(example.text)
    url = urlsplit(next(word for word in words if word.startswith(("http://", "$URL"))).replace("$URL", ""))
    posts = "POST" in words or bool({"-d", "--data-binary"} & set(words))
    template = next(each for each in paths if _fits(each, url.path))

    operation = paths[template]["post" if posts else "get"]

    taken = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    assert {name for name, _ in parse_qsl(url.query)} - taken == set()


def _fits(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path) is not None
