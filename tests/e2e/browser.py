"""A real browser's look at the page, and a record of what went wrong while it looked."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")

DONE_MS: Final = 90_000
"""A few images on a machine that does much else."""
_NOTED_BY_THE_BROWSER: Final = "Failed to load resource"
"""Its own words for an answer of 400 or more, which is recorded as such."""


@dataclass
class Visit:
    """One page and what happened on it. refused: (status, path) of each answer of 400 or more."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._on_request)
        self.page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(_NOTED_BY_THE_BROWSER):
            self.errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"}:
            self.hosts.add(parts.netloc)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.refused.append((response.status, urlsplit(response.url).path))

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        return self.page

    def ask(self, n: int, seed: int, class_slug: str = "pro_b") -> None:
        """Fill the form and send it."""
        self.page.locator("label.choice", has=self.page.locator(f"input[value='{class_slug}']")).click()
        self.page.get_by_label("Number of images").fill(str(n))
        self.page.locator("#seed").fill(str(seed))
        self.page.get_by_role("button", name="Generate").click()

    def expect_status(self, *statuses: str) -> None:
        """Wait until the open job is in one of these states."""
        one_of = ", ".join(f"#job-status.{status}" for status in statuses)
        expect(self.page.locator(one_of)).to_be_visible(timeout=DONE_MS)

    def expect_pictures(self, count: int) -> None:
        """Wait until the gallery has so many, and their pixels."""
        pictures = self.page.locator("#gallery img")
        expect(pictures).to_have_count(count)
        are_loaded = "all => all.every(one => one.complete && one.naturalWidth)"
        for _ in range(DONE_MS // 100):
            if pictures.evaluate_all(are_loaded):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{count} pictures have not come")

    def check(self, refused: list[tuple[int, str]]) -> None:
        """Nothing went wrong but what was to be refused, and nobody else was asked for anything."""
        assert self.errors == []
        assert self.refused == refused
        assert self.hosts == {urlsplit(self.url).netloc}


@contextmanager
def visiting(browser: Browser, url: str, **looks: Any) -> Iterator[Visit]:
    """looks: of the browser's context, such as `viewport` and `color_scheme`."""
    context = browser.new_context(**looks)
    context.set_default_timeout(30_000)
    visit = Visit(context.new_page(), url)
    visit.watch()
    try:
        yield visit
    finally:
        context.close()


def natural_width(page: Page, selector: str) -> int:
    """Pixels of a picture that has been loaded; 0 while it has not."""
    width: int = page.locator(selector).first.evaluate(
        "picture => picture.complete ? picture.naturalWidth : 0"
    )
    return width
