"""Self-contained HTML pages, readable in light and dark: nothing to fetch, no script. Torch-free."""

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --soft: #f5f6f8; --line: #d9dee4;
  --dim: #59636e; --good: #1a7f37; --warn: #9a6700; --bad: #c62828; --bar: #7fa6d6; --mark: #1f2328;
  --c0: #3465a4; --c1: #c0392b; --c2: #2e8b57; --c3: #8e44ad; --c4: #b97a00; --c5: #0f8a8a; --c6: #6b7580 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #14171b; --soft: #1e2227;
  --line: #3a4149; --dim: #9da7b1; --good: #4cc26a; --warn: #e0ac2b; --bad: #ff7b72; --bar: #41679c;
  --mark: #e6e9ed; --c0: #79a8e8; --c1: #ff8a7a; --c2: #63c98d; --c3: #c792ea; --c4: #e6b450;
  --c5: #5cc9c9; --c6: #a3adb8 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1320px; margin: 2em auto; padding: 0 1.2em }
h1 { line-height: 1.2; overflow-wrap: anywhere } h2 { margin-top: 2em } h3 { margin: 1.6em 0 .6em }
figure { display: inline-block; margin: 0 1.2em 1.2em 0; vertical-align: top; max-width: 100% }
figcaption { font-weight: 600 } figcaption span { font-weight: 400; margin-left: .5em }
img { max-width: 100% } svg { background: var(--soft); max-width: 100%; height: auto; border-radius: 4px }
svg text { font: 11px system-ui, sans-serif; fill: var(--dim) } svg .grid { stroke: var(--line) }
.scroll { overflow-x: auto } table { border-collapse: collapse; margin: .4em 0 }
td, th { border-bottom: 1px solid var(--line); padding: .3em 1em .3em 0; text-align: left }
td, th { vertical-align: top } th { font-weight: 600 } small, .dim { color: var(--dim) }
pre { background: var(--soft); padding: 1em; overflow: auto } summary { cursor: pointer }
"""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: str) -> Html:
    """The value as markup: escaped, unless it is markup."""
    return value if isinstance(value, Html) else Html(escape(value))


def named(name: str, meaning: str) -> Html:
    """A row's or a column's name with what it means in small print."""
    return Html(f"{escape(name)}<small>{escape(meaning)}</small>")


def page(title: str, body: Iterable[str], *, head: str = "", style: str = "") -> str:
    """A whole document. body, head: markup. style: rules beside STYLE."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>{head}<style>{STYLE}{style}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> Html:
    """A table that scrolls on its own where the window is narrow. A row's first cell names the row."""
    lines = [f"<tr>{''.join(f'<th>{text(cell)}</th>' for cell in head)}</tr>"] if head else []
    for name, *cells in rows:
        lines.append(f"<tr><th>{text(name)}</th>{''.join(f'<td>{text(cell)}</td>' for cell in cells)}</tr>")
    return Html(f'<div class="scroll"><table>{"".join(lines)}</table></div>')


def picture(content: bytes, alt: str, size_px: int | None = None) -> Html:
    """An image inside the page. content: JPEG, PNG or WebP. size_px: side of its square on the page.

    Raises ValueError for other bytes.
    """
    data = base64.b64encode(content).decode()
    size = "" if size_px is None else f' width="{size_px}" height="{size_px}"'
    name = escape(alt)
    return Html(f'<img alt="{name}" title="{name}"{size} src="data:{_media_type(content)};base64,{data}">')


def folded(summary: str, content: str, *, is_open: bool = False) -> Html:
    """Content that can be hidden, as it is at first unless `is_open`. content: markup."""
    state = " open" if is_open else ""
    return Html(f"<details{state}><summary>{escape(summary)}</summary>{content}</details>")


def round_ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(step * k, 10) for k in range(first, last + 1)]


def _media_type(content: bytes) -> str:
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError(f"image begins with {content[:4]!r}; it must be JPEG, PNG or WebP")
