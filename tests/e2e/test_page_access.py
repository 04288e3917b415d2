"""The page for everybody: by keyboard alone, read aloud, in the dark, on a phone, without motion."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import Visit, needs_chromium, visiting
from tests.e2e.conftest import needs_own_stack

pytestmark = [needs_chromium, needs_own_stack]

PHONE = {"viewport": {"width": 375, "height": 740}, "has_touch": True}
LOOKS: list[dict[str, Any]] = [{}, {"color_scheme": "dark"}, PHONE]
_WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def assert_accessible(page: Page) -> None:
    """No rule of WCAG 2.2 AA that a program can check is broken; contrast is one of them."""
    found = Axe().run(page, options=_WCAG)
    broken = [
        f"{rule['id']}: {[node['html'] for node in rule['nodes']]}" for rule in found.response["violations"]
    ]
    assert broken == []


def assert_fits(page: Page) -> None:
    """Nothing makes the whole page scroll sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("looks", LOOKS, ids=["light", "dark", "phone"])
def test_each_part_of_the_pages_is_accessible_and_fits(
    browser: Browser, base_url: str, looks: dict[str, Any]
) -> None:
    with visiting(browser, base_url, reduced_motion="reduce", **looks) as visit:
        page = visit.open()
        visit.ask(n=2, seed=21)
        visit.expect_status("succeeded")
        page.locator("summary").click()
        assert_accessible(page)
        assert_fits(page)
        page.locator("#gallery button").first.click()
        assert_accessible(page)
        page.keyboard.press("Escape")
        page.locator("#n").fill("0")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("alert")).to_be_visible()
        assert_accessible(page)
        visit.open("/quality")
        expect(page.locator("#card")).to_contain_text("Not for")
        assert_accessible(page)
        assert_fits(page)
        visit.check(refused=[(422, "/generate")])


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#classes input").first).to_be_attached()

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Checkpoint")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#classes input:checked").count() == 1
    page.locator("#n").press("ControlOrMeta+a")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    visit.expect_status("succeeded")
    first = page.locator("#gallery button").first
    first.press("Enter")
    title = page.locator("#image-title").inner_text()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#image-title")).not_to_have_text(title)
    page.keyboard.press("Escape")

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(first).to_be_focused()
    visit.check(refused=[])


def test_progress_is_told_to_who_cannot_see_it(visit: Visit) -> None:
    page = visit.open()

    visit.ask(n=2, seed=22)
    visit.expect_status("succeeded")

    told = page.locator("#announce[role=status]")
    expect(told).to_have_text("Job succeeded, 2 of 2 images made.")
    assert told.get_attribute("aria-live") == "polite"


def test_nothing_moves_for_who_asked_for_that(browser: Browser, base_url: str) -> None:
    with visiting(browser, base_url, reduced_motion="reduce") as visit:
        page = visit.open()
        page.evaluate("document.getElementById('job-status').className = 'status running'")

        moving = page.evaluate(
            "() => [...document.querySelectorAll('*')].flatMap(node => ['', '::before', '::after']"
            ".map(part => getComputedStyle(node, part))"
            ".filter(style => style.animationName !== 'none' || style.transitionDuration !== '0s')).length"
        )

        assert moving == 0


def test_the_page_says_what_it_is_not_for(visit: Visit) -> None:
    for path in ("/", "/quality", "/docs"):
        page = visit.open(path)

        expect(page.get_by_role("note")).to_contain_text("Not for diagnosis.")
        expect(page.get_by_role("note")).to_be_in_viewport()
