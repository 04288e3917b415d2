"""The pages as they are sent: to anybody, with a strict policy, and made of nothing that lies elsewhere."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.routes.pages import content_security
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running

pytestmark = pytest.mark.integration

PAGES = ("/", "/quality", "/docs")
WEB = Path(__file__).parents[3] / "service" / "web"
_NOT_OURS = re.compile(r"https?://(?!www\.w3\.org/2000/svg)|//[a-z0-9.-]+\.[a-z]{2,}/", re.IGNORECASE)


class _Elements(HTMLParser):
    """What a page loads, and what of it is script or style within the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        loaded = given.get("src") or (given.get("href") if tag == "link" else None)
        if loaded:
            self.loads.append(loaded)
        if tag == "style" or (tag == "script" and not loaded):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]


@pytest.fixture(scope="module")
def keyed(module_service: Service, settings: ServiceSettings) -> Iterator[Service]:
    changed = settings.model_copy(update={"api_key": SecretStr("a-key-for-this-test")})
    with running(changed, Clock(), module_service.checkpoint) as service:
        yield service


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_script_or_style_within_and_all_it_loads_is_here(service: Service, path: str) -> None:
    answer = service.client.get(path)

    page = _Elements(answer.text)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert page.inline == []
    assert page.loads
    assert {service.client.get(name).status_code for name in page.loads} == {200}
    assert "Not for diagnosis." in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_a_page_s_policy_lets_nothing_else_run(service: Service, path: str) -> None:
    policy = service.client.get(path).headers["content-security-policy"]

    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert (
        rules["default-src"]
        == rules["frame-ancestors"]
        == rules["base-uri"]
        == rules["form-action"]
        == "'none'"
    )
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"


def test_the_frame_of_a_report_runs_one_script_and_belongs_to_nobody(service: Service) -> None:
    answer = service.client.get("/quality/frame")

    policy = answer.headers["content-security-policy"]
    script = answer.text.partition("<script>")[2].partition("</script>")[0]
    assert policy == content_security("frame.html", script)
    assert "sandbox allow-scripts;" in policy
    assert "allow-same-origin" not in policy
    assert "'self'" not in policy.replace("frame-ancestors 'self'", "")


def test_pages_need_no_key_and_hold_nothing_of_anybody(keyed: Service) -> None:
    pages = [keyed.client.get(path) for path in (*PAGES, "/static/index.js", "/openapi.json")]

    assert {page.status_code for page in pages} == {200}
    assert "tiny" not in "".join(page.text for page in pages[:3])
    assert 'data-keyed="true"' in pages[0].text
    assert keyed.client.get("/models").status_code == 401


def test_a_page_is_refused_under_a_name_that_is_not_this_machine_s(service: Service) -> None:
    assert service.client.get("/", headers={"Host": "rebound.example"}).status_code == 403


def test_files_are_asked_about_each_time_and_sent_once(service: Service) -> None:
    first = service.client.get("/static/page.css")
    again = service.client.get("/static/page.css", headers={"If-None-Match": first.headers["etag"]})

    assert first.headers["cache-control"] == "no-cache"
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/../settings.py", "/static/%2e%2e/pages.py"])
def test_nothing_but_the_pages_files_is_served(service: Service, path: str) -> None:
    answer = service.client.get(path)

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_our_files_name_no_other_host_and_turn_no_text_into_markup() -> None:
    sources = [*WEB.rglob("*.js"), *WEB.rglob("*.css"), *WEB.rglob("*.html")]
    ours = {path.name: path.read_text() for path in sources}

    assert {name for name, text in ours.items() if _NOT_OURS.search(text)} == set()
    markup = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(")
    assert {name for name, text in ours.items() if markup.search(text)} == set()


def test_who_has_no_javascript_is_told_what_to_do(service: Service) -> None:
    assert "curl" in service.client.get("/").text.partition("<noscript>")[2].partition("</noscript>")[0]
