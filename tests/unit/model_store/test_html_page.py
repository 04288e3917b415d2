"""Pages carry all they need, and text stays text."""

import io

import pytest
from PIL import Image

from model_store.html_page import Html, folded, page, picture, round_ticks, table, text


def encoded(image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 180, 220)).save(buffer, image_format)
    return buffer.getvalue()


def test_text_is_escaped_once_and_markup_is_kept() -> None:
    assert text("<b> & co") == "&lt;b&gt; &amp; co"
    assert text(Html("<b>bold</b>")) == "<b>bold</b>"


def test_page_is_a_document_that_knows_dark_and_names_its_title() -> None:
    document = page("a < b", ["<p>body</p>"], head='<meta name="x" content="y">', style=".mine {}")

    assert document.startswith("<!doctype html>")
    assert "<title>a &lt; b</title>" in document
    assert "prefers-color-scheme: dark" in document
    assert ".mine {}" in document
    assert "<body><p>body</p></body>" in document


def test_table_names_rows_and_columns_and_escapes_cells() -> None:
    markup = table([("loss", "<1"), ("rate", Html("<b>2</b>"))], ("", "value"))

    assert "<tr><th></th><th>value</th></tr>" in markup
    assert "<tr><th>loss</th><td>&lt;1</td></tr>" in markup
    assert "<td><b>2</b></td>" in markup


@pytest.mark.parametrize(("image_format", "kind"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp")])
def test_picture_is_inside_the_page(image_format: str, kind: str) -> None:
    markup = picture(encoded(image_format), 'a "cell"', 64)

    assert f'src="data:image/{kind};base64,' in markup
    assert 'alt="a &quot;cell&quot;"' in markup
    assert 'width="64"' in markup


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="JPEG, PNG or WebP"):
        picture(b"<svg onload=...>", "no picture")


def test_folded_content_is_hidden_unless_told_otherwise() -> None:
    assert folded("more", "<p/>").startswith("<details><summary>more</summary><p/>")
    assert folded("more", "", is_open=True).startswith("<details open>")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0.03, 0.11, [0.04, 0.06, 0.08, 0.1]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_and_within(low: float, high: float, expected: list[float]) -> None:
    assert round_ticks(low, high) == expected
