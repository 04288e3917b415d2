"""The documents against the application: requests that exist, and pages that can be found."""

import re
from collections import deque
from pathlib import Path

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
METHODS = "GET|POST|PUT|DELETE"
CLICKS = 2
NOT_DESCRIBED = {"GET /metrics"}
"""Answered, and left out of the OpenAPI document."""


def without_names(text: str) -> str:
    """Paths with `{}` in place of each parameter, whatever it is called."""
    return re.sub(r"\{[^{}\s]*\}", "{}", text)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = str(tmp_path_factory.mktemp("app"))
    return create_app(ServiceSettings(model_store_url=folder, result_store_url=folder))


def described(app: FastAPI) -> set[str]:
    """`METHOD path` of what the OpenAPI document has."""
    return {
        without_names(f"{method.upper()} {path}")
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }


def test_every_request_is_documented(app: FastAPI) -> None:
    pages = without_names(" ".join(page.read_text() for page in DOCS))
    documented = {f"{found[1]} {found[2]}" for found in re.finditer(rf"`({METHODS}) (/[^\s`?,]*)", pages)}

    assert described(app)
    assert described(app) - documented == set()


def test_no_request_is_documented_that_is_not_there(app: FastAPI) -> None:
    there = [re.escape(each).replace(r"\{\}", "[^/]+") for each in described(app) | NOT_DESCRIBED]
    known = re.compile("|".join(there))
    unknown = {
        f"{page.name}: {found[1]} {found[2]}"
        for page in DOCS
        for found in re.finditer(rf"`({METHODS}) (/[^\s`?,]*)", without_names(page.read_text()))
        if not known.fullmatch(f"{found[1]} {found[2]}")
    }

    assert unknown == set()


def links(page: Path) -> set[Path]:
    """Pages that a page links to."""
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+\.md)", page.read_text())
    found = ((page.parent / target).resolve() for target in targets)
    return {target for target in found if target.is_file()}


def test_every_page_is_two_clicks_from_the_first() -> None:
    far = {(ROOT / "README.md").resolve(): 0}
    waiting = deque(far)
    while waiting:
        page = waiting.popleft()
        for target in links(page) - far.keys():
            far[target] = far[page] + 1
            waiting.append(target)

    assert [page.name for page in DOCS if far.get(page.resolve(), CLICKS + 1) > CLICKS] == []
