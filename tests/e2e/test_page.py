"""The page as somebody at a bench uses it, in a real browser against the whole stack."""

import io
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.browser import DONE_MS, Visit, natural_width, needs_chromium
from tests.e2e.conftest import needs_own_stack

pytestmark = [needs_chromium, needs_own_stack]


def test_images_are_made_looked_at_drawn_again_and_downloaded(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()

    visit.ask(n=3, seed=11)
    visit.expect_status("succeeded")
    expect(page.locator("#gallery img")).to_have_count(3)
    page.get_by_role("button", name="Image 2: pro_b, number 1").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#image-facts")).to_contain_text(".pro_b.11.1.0.10000")
    expect(dialog.locator("#image-gate")).to_contain_text("Spread of luma")
    dialog.get_by_role("button", name="Regenerate").click()
    expect(dialog.locator("#again-verdict")).to_have_text("Drawn again: the same pixels", timeout=DONE_MS)
    assert natural_width(page, "#again-picture") == natural_width(page, "#image-picture") > 0
    page.keyboard.press("Escape")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download zip").click()

    downloading.value.save_as(tmp_path / "images.zip")
    with zipfile.ZipFile(io.BytesIO((tmp_path / "images.zip").read_bytes())) as archive:
        assert archive.testzip() is None
        assert [name for name in archive.namelist() if name.endswith(".png")] == [
            f"pro_b/{index:06d}.png" for index in range(3)
        ]
    visit.check(refused=[])


def test_the_gallery_fills_while_the_job_runs_and_it_can_be_canceled_retried_and_deleted(
    visit: Visit,
) -> None:
    page = visit.open()

    visit.ask(n=1_000, seed=12)
    page.locator("#gallery img").first.wait_for(timeout=DONE_MS)
    visit.expect_status("running")
    expect(page.locator("#job-progress")).not_to_have_js_property("value", 0)
    assert page.locator("#job-progress").evaluate("bar => bar.value") < 1_000
    page.locator("#job-actions").get_by_role("button", name="Cancel").click()
    visit.expect_status("canceled")
    assert page.locator("#gallery img").count() > 0
    page.locator("#job-actions").get_by_role("button", name="Retry").click()
    visit.expect_status("queued", "running")
    page.get_by_role("button", name="Delete pro_b, seed 12", exact=True).click()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("button", name="Delete pro_b, seed 12", exact=True)).to_be_visible()
    page.get_by_role("button", name="Delete pro_b, seed 12", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.get_by_role("button", name="Delete pro_b, seed 12", exact=True)).to_have_count(0)
    expect(page.locator("#job-none")).to_be_visible()
    visit.check(refused=[])


def test_several_classes_in_one_job_and_asking_for_the_same_again(visit: Visit) -> None:
    page = visit.open()

    page.locator("label.choice", has_text="several").click()
    for field in page.locator("#mix input").all():
        field.fill("0")
    page.get_by_label("benign", exact=True).last.fill("1")
    page.get_by_label("pre_b", exact=True).last.fill("2")
    page.locator("#seed").fill("13")
    page.get_by_role("button", name="Generate").click()
    visit.expect_status("succeeded")
    page.locator("#seed").fill("")
    page.get_by_role("button", name="Ask again").click()

    expect(page.locator("#job-title")).to_have_text("3 images, 1 benign, 2 pre_b")
    expect(page.locator("#gallery img")).to_have_count(3)
    expect(page.locator("#seed")).to_have_value("13")
    assert page.locator("#mix input").evaluate_all("all => all.map(one => one.value)") == ["1", "0", "2", "0"]
    visit.check(refused=[])


def test_a_walk_between_two_seeds_is_gone_step_by_step_and_by_itself(visit: Visit) -> None:
    page = visit.open()

    page.get_by_label("Walk to seed").fill("18")
    visit.ask(n=4, seed=17)
    visit.expect_status("succeeded")
    visit.expect_pictures(4)
    page.get_by_role("slider", name="Step").press("ArrowRight")
    expect(page.locator("#walk-frame")).to_have_text("frame 2 of 4")
    pixels = "canvas => canvas.toDataURL()"
    second = page.locator("#walk-picture").evaluate(pixels)
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#walk-frame")).not_to_have_text("frame 2 of 4")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("slider", name="Step").press("End")
    assert page.locator("#walk-picture").evaluate(pixels) != second
    page.get_by_role("button", name="Image 3: pro_b, number 2").click()
    expect(page.locator("#image-facts")).to_contain_text(".pro_b.17.2.0.10000.18.4")
    page.get_by_role("button", name="Regenerate").click()

    expect(page.locator("#again-verdict")).to_have_text("Drawn again: the same pixels", timeout=DONE_MS)
    visit.check(refused=[])


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [("#n", "0", "n: "), ("#n", "50001", "50000"), ("#seed", "-1", "seed: ")],
)
def test_what_is_wrong_is_told_in_words_beside_its_field(
    visit: Visit, field: str, value: str, named: str
) -> None:
    page = visit.open()
    expect(page.locator("#classes input").first).to_be_attached()

    page.locator(field).fill(value)
    page.get_by_role("button", name="Generate").click()

    expect(page.get_by_role("alert")).to_contain_text(named)
    expect(page.locator(field)).to_have_attribute("aria-invalid", "true")
    expect(page.locator(field)).to_be_focused()
    visit.check(refused=[(422, "/generate")])


def test_a_job_is_followed_by_asking_where_events_do_not_come_through(visit: Visit) -> None:
    def cut(route: Route) -> None:
        route.abort()

    visit.page.route("**/events", cut)
    page = visit.open()

    visit.ask(n=2, seed=14)

    visit.expect_status("succeeded")
    expect(page.locator("#gallery img")).to_have_count(2)


def test_a_job_has_an_address_of_its_own_and_one_that_is_not_there_is_said(visit: Visit) -> None:
    page = visit.open()
    visit.ask(n=1, seed=15)
    visit.expect_status("succeeded")

    page.reload()
    expect(page.locator("#job-title")).to_have_text("1 image, pro_b")
    page.goto(f"{visit.url}/#job_01KAQ3V5T8X2M4N6P8R0S2T4V6")

    expect(page.get_by_role("alert")).to_contain_text("job_01KAQ3V5T8X2M4N6P8R0S2T4V6")
    visit.check(refused=[(404, "/jobs/job_01KAQ3V5T8X2M4N6P8R0S2T4V6")])


def test_the_quality_page_shows_the_report_where_it_can_reach_nothing(visit: Visit) -> None:
    page = visit.open("/quality")

    expect(page.locator("#card")).to_contain_text("Not for")
    if page.locator("#no-report").is_hidden():
        report = page.frame_locator("#report")
        expect(report.get_by_role("heading", name="Quality report of")).to_be_visible()
        assert report.locator("body").evaluate("() => window.origin") == "null"
        expect(report.locator("svg").first).to_be_attached()
    visit.check(refused=[])


def test_the_api_s_description_can_be_read_and_tried_without_another_machine(visit: Visit) -> None:
    page = visit.open("/docs")

    page.get_by_text("The process answers").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()

    expect(page.locator(".live-responses-table")).to_contain_text('"status": "ok"')
    visit.check(refused=[])
