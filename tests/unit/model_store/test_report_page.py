"""The page of a report is whole, fetches nothing and tells whose it is; patient images stay apart."""

import hashlib
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from model_store.manifest import FileEntry
from model_store.report import REPORT_FILE, QualityReport
from model_store.report_page import (
    REPORT_PAGE_FILE,
    THUMBNAIL_PX,
    ImagePair,
    PatientImages,
    Thumbnail,
    read_report_page,
    render_private_report,
    render_report,
)
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import describe, tiny_config
from tests.full_report import full_report

WEIGHTS = b"not looked at here"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Counts elements, checks that they nest, and collects whatever a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [str(value) for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def thumbnail(caption: str, seed: int = 0) -> Thumbnail:
    pixels = np.random.default_rng(seed).integers(0, 256, (THUMBNAIL_PX, THUMBNAIL_PX, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=85)
    return Thumbnail(buffer.getvalue(), caption)


def publish(store: ModelStore, report: QualityReport | None, page: str | None = None) -> Checkpoint:
    """A checkpoint with that report and that stored page."""
    files = {"weights.safetensors": WEIGHTS}
    if report is not None:
        files[REPORT_FILE] = report.model_dump_json().encode()
    if page is not None:
        files[REPORT_PAGE_FILE] = page.encode()
    entries = tuple(
        FileEntry(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for path, content in files.items()
        if path != "weights.safetensors"
    )
    manifest = describe("tiny", "1", WEIGHTS, tiny_config()).model_copy(update={"reports": entries})
    return store.publish(manifest, files)


def own_report() -> QualityReport:
    """The full report, of the checkpoint that `publish` makes."""
    return full_report(describe("tiny", "1", WEIGHTS, tiny_config()).digest)


def test_page_is_well_formed_and_fetches_nothing() -> None:
    page = Page(render_report(full_report(), {"pro_b": [thumbnail("a")]}, checkpoint="tiny@1"))

    assert page.open == []
    assert page.counts["img"] == 1
    assert "script" not in page.counts
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)


@pytest.mark.parametrize(
    "shown",
    [
        "Quality report of tiny@1",
        "d" * 64,
        "2026-01-02 03:04 UTC",
        "1,000 generated, 1,234 real, 2 classes",
        "seed 11, truncation 0.75",
        "yes, near-duplicates were removed",
        "uint8 RGB, bicubic",
        "c" * 64,
        "efficientnet-lite0: each of the 2 classes",
        "Generated images",
        "Frechet distance to every class, efficientnet-lite2",
        "CMMD on clip-vit-l-14-336",
        "FID: no Inception weights",
        "Brightness, colour, scale bars, labels",
        "Memorisation",
        "Usefulness",
        "Rank by KID &amp; nothing else.",
        "docs/evaluation.md",
    ],
)
def test_page_tells_the_whole_report(shown: str) -> None:
    assert shown in render_report(full_report(), {"pro_b": [thumbnail("a")]}, checkpoint="tiny@1")


def test_page_without_a_name_or_sheets_goes_by_the_digest() -> None:
    page = render_report(full_report())

    assert f"Quality report of {'d' * 16}" in page
    assert "Generated images" not in page


def test_same_report_gives_the_same_page() -> None:
    assert render_report(full_report(), checkpoint="tiny@1") == render_report(
        full_report(), checkpoint="tiny@1"
    )


def test_four_sheets_of_eight_stay_small() -> None:
    noise = {f"class_{k}": [thumbnail("noise", 8 * k + i) for i in range(8)] for k in range(4)}

    assert len(render_report(full_report(), noise)) < 1_500_000  # noise compresses worse than any cell


def test_what_is_given_as_text_stays_text() -> None:
    report = full_report().model_copy(update={"notes": "<script>alert(1)</script>"})

    page = render_report(report, {"pro_b": [thumbnail('"><script>')]}, checkpoint="<script>")

    assert "<script" not in page


def test_private_page_shows_pairs_and_says_that_it_must_not_be_shared() -> None:
    pair = ImagePair(thumbnail("image 3 of seed 11"), thumbnail("Pro/7.jpg"), "cosine similarity 0.93")
    patients = PatientImages(neighbours={"pro_b": [pair]}, flagged={"pro_b": [pair], "benign": []})

    text = render_private_report(full_report(), {}, patients, checkpoint="tiny@1")

    page = Page(text)
    assert page.open == []
    assert page.counts["img"] == 4
    assert text.index("images of patients. Do not share") < text.index("<li>")
    assert "<title>PATIENT IMAGES" in text
    assert "cosine similarity 0.93" in text
    assert "Flagged: generated images beside" in text


def test_private_page_without_a_flagged_image_has_no_such_section() -> None:
    pair = ImagePair(thumbnail("a"), thumbnail("b"), "alike")

    page = render_private_report(full_report(), {}, PatientImages(neighbours={"pro_b": [pair]}, flagged={}))

    assert "Flagged: generated images beside" not in page


def test_stored_page_is_given_as_it_is(model_store: ModelStore) -> None:
    stored = render_report(own_report(), {"pro_b": [thumbnail("a")]}, checkpoint="tiny@1")

    assert read_report_page(model_store, publish(model_store, own_report(), stored)) == stored


def test_page_is_made_of_the_report_where_none_is_stored(model_store: ModelStore) -> None:
    made = read_report_page(model_store, publish(model_store, own_report()))

    assert made == render_report(own_report(), checkpoint="tiny@1")


def test_stored_page_of_another_report_is_not_given(model_store: ModelStore) -> None:
    older = own_report().model_copy(
        update={"seed": 5, "created_at": full_report().created_at.replace(year=2025)}
    )

    found = read_report_page(model_store, publish(model_store, own_report(), render_report(older)))

    assert found == render_report(own_report(), checkpoint="tiny@1")


def test_stored_page_with_patient_images_is_not_given(model_store: ModelStore) -> None:
    pair = ImagePair(thumbnail("a"), thumbnail("patient"), "alike")
    private = render_private_report(own_report(), {}, PatientImages(neighbours={"pro_b": [pair]}, flagged={}))

    found = read_report_page(model_store, publish(model_store, own_report(), private))

    assert found is not None
    assert "patient" not in found


def test_checkpoint_without_a_report_has_no_page(model_store: ModelStore) -> None:
    assert read_report_page(model_store, publish(model_store, None)) is None
