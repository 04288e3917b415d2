"""The documents against the application: requests that exist, and pages that can be found."""

import re
import runpy
import subprocess
import tomllib
from collections import deque
from pathlib import Path

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
RENDERED: dict[Path, str] = runpy.run_path(str(ROOT / "docs/render.py"))["pages"]()
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


@pytest.mark.parametrize("page", RENDERED, ids=lambda page: page.name)
def test_a_page_made_of_the_code_is_what_the_code_makes(page: Path) -> None:
    assert page.read_text() == RENDERED[page], "make docs"


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    pages = [*DOCS, *(ROOT / "docs/decisions").glob("*.md")]

    assert [page.name for page in pages if page != index and page not in links(index)] == []


@pytest.mark.parametrize("page", [*DOCS, *ROOT.glob("*.md")], ids=lambda page: page.name)
def test_a_link_into_a_page_finds_its_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text())
    files = [((page.parent / path).resolve() if path else page, heading) for path, heading in links]

    assert [f"{file.name}#{heading}" for file, heading in files if heading not in headings(file)] == []


def headings(page: Path) -> set[str]:
    """What the headings of a page are called in a link."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
FOLDERS = ("masan", "service", "worker", "model_store", "training")


def test_the_architecture_names_every_folder_of_code() -> None:
    packages = {path.parent.relative_to(ROOT) for top in FOLDERS for path in (ROOT / top).rglob("*.py")}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    tops = {Path(line).parts[0] for line in tracked.splitlines() if "/" in line and not line.startswith(".")}
    named = set(re.findall(r"^\| `([\w/]+)/`", ARCHITECTURE, re.MULTILINE))

    assert {str(each) for each in packages} - named == set()
    assert tops - named == set()


def test_the_architecture_names_nothing_that_is_not_there() -> None:
    named = re.findall(r"`((?:[\w]+/)+[\w.]*)`", ARCHITECTURE)

    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_architecture_says_what_the_service_may_import() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    agreed = next(each for each in contracts if each["id"] == "service-uses-the-agreed-modules")
    allowed = re.findall(r"-> model_store\.(\w+)", " ".join(agreed["ignore_imports"]))
    row = next(line for line in ARCHITECTURE.splitlines() if line.startswith("| `service` |"))

    assert sorted(re.findall(r"`(\w+)`", row.partition("torch:")[2])) == sorted(allowed)
