"""The stack under test: `E2E_BASE_URL` if it is set, else one that is started here."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from model_store.builtin import builtin_store
from tests.e2e.browser import CHROMIUM, Visit, visiting
from tests.e2e.running_stack import RunningStack
from tests.e2e.tiny_checkpoint import publish_tiny

BASE_URL = os.environ.get("E2E_BASE_URL")
BUILTIN = "b-all@production"
needs_own_stack = pytest.mark.skipif(
    BASE_URL is not None, reason="E2E_BASE_URL: that stack is not ours to stop"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def ships_builtin() -> bool:
    return bool(builtin_store().names())


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory, ships_builtin: bool) -> Iterator[str]:
    """A warm server that all tests share: with the checkpoint that ships, or a tiny one if none does."""
    if BASE_URL is not None:
        yield BASE_URL.rstrip("/")
        return
    data_dir = tmp_path_factory.mktemp("shared") / "data"
    model = BUILTIN if ships_builtin else publish_tiny(data_dir / "store")
    with RunningStack(data_dir, model) as stack:
        yield stack.url


@pytest.fixture(scope="session")
def http(base_url: str) -> Iterator[httpx.Client]:
    api_key = os.environ.get("E2E_API_KEY")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(base_url=base_url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def tiny_data_dir(tmp_path: Path) -> Path:
    """A data folder whose store holds `tiny@1`, quick to load and to sample."""
    publish_tiny(tmp_path / "data" / "store")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, base_url: str) -> Iterator[Visit]:
    """A fresh tab of a wide window, on the shared server."""
    with visiting(browser, base_url) as visit:
        yield visit
