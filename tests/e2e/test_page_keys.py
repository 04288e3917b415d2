"""The page of a service that asks for keys: nothing without one, everything with one, and kept in one tab."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browser import DONE_MS, Visit, natural_width, needs_chromium, visiting
from tests.e2e.conftest import needs_own_stack
from tests.e2e.running_stack import RunningStack
from tests.e2e.tiny_checkpoint import publish_tiny

pytestmark = [needs_chromium, needs_own_stack]

KEY = "a-key-of-the-page-s-tests"


@pytest.fixture(scope="module")
def keyed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data_dir = tmp_path_factory.mktemp("keyed") / "data"
    model = publish_tiny(data_dir / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASAN_API_KEY", KEY)
        with RunningStack(data_dir, model) as stack:
            yield stack.url


@pytest.fixture
def visit(browser: Browser, keyed_url: str) -> Iterator[Visit]:
    with visiting(browser, keyed_url) as visit:
        yield visit


def enter(visit: Visit, key: str) -> None:
    visit.page.get_by_label("API key").last.fill(key)
    visit.page.get_by_role("button", name="Use this key").click()


def test_without_a_key_there_is_only_where_to_put_one(visit: Visit) -> None:
    page = visit.open()

    expect(page.get_by_label("API key").last).to_be_focused()
    expect(page.locator("#workbench")).to_be_hidden()
    enter(visit, "not-the-key-of-this-service")

    expect(page.get_by_role("alert")).to_contain_text("Send an API key")
    expect(page.locator("#workbench")).to_be_hidden()
    visit.check(refused=[(401, "/models")])


def test_with_a_key_images_are_made_shown_drawn_again_and_downloaded(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()

    enter(visit, KEY)
    visit.ask(n=2, seed=31)
    visit.expect_status("succeeded")
    expect(page.locator("#gallery img[src^='blob:']")).to_have_count(2)
    page.locator("#gallery button").first.click()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("#again-verdict")).to_have_text("Drawn again: the same pixels", timeout=DONE_MS)
    assert natural_width(page, "#gallery img") > 0
    page.keyboard.press("Escape")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download zip").click()
    downloading.value.save_as(tmp_path / "images.zip")

    assert zipfile.is_zipfile(tmp_path / "images.zip")
    assert downloading.value.suggested_filename.endswith(".zip")
    assert KEY not in page.content()
    visit.check(refused=[])


def test_the_key_is_kept_for_a_reload_of_its_tab_and_can_be_forgotten(visit: Visit, browser: Browser) -> None:
    page = visit.open()
    enter(visit, KEY)
    expect(page.locator("#workbench")).to_be_visible()

    page.reload()
    expect(page.locator("#workbench")).to_be_visible()
    page.get_by_role("link", name="Quality").click()
    expect(page.locator("#card")).to_contain_text("Not for")
    page.get_by_role("button", name="Forget it").click()

    expect(page.locator("#workbench")).to_be_hidden()
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0
    assert page.context.cookies() == []
    visit.check(refused=[])
