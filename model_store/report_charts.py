"""A quality report's figures drawn: bars with floors beside them, and the class matrix. Torch-free."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from model_store.html_page import Html, round_ticks

CHART_STYLE: Final = """
.bar { fill: var(--bar) } .mark, .whisker { stroke: var(--mark); stroke-width: 2; fill: none }
.whisker { stroke-width: 1 } .mark1 { stroke-dasharray: 4 2 } .mark2 { stroke-dasharray: 1 2 }
svg .label { font-size: 12px; fill: var(--ink) } svg .zero { stroke: var(--dim) }
.key { color: var(--dim); font-size: 12px }
.key svg { background: none; vertical-align: middle; margin-left: .8em }
.matrix td { text-align: center; padding: .35em .9em; border: 1px solid var(--line) }
.matrix th { padding-right: .9em } .matrix .nearest { outline: 3px solid var(--good); outline-offset: -3px }
.matrix .nearest b::after { content: " \\2713"; color: var(--good) }
.matrix .stray { outline-color: var(--bad) }
.matrix .stray b::after { content: " \\2717"; color: var(--bad) }
"""

_WIDTH: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 112, 70, 6, 22
_ROW: Final = 26
_DASHES: Final = 3
"""Kinds of marks that can be told apart."""


@dataclass(frozen=True)
class Bar:
    """One bar. value: None leaves its row empty. spread: half the whisker. marks: where each kind lies."""

    label: str
    value: float | None
    spread: float | None = None
    marks: Mapping[str, Sequence[float]] = field(default_factory=dict)


def floor_marks(random: float | None, blocked: float | None) -> dict[str, tuple[float, ...]]:
    """Marks of what random halves of the real images score, and other slides of the same class."""
    places = {"random halves of real images": random, "other slides of the class": blocked}
    return {kind: (place,) for kind, place in places.items() if place is not None}


def bar_chart(title: str, bars: Sequence[Bar], spec: str = ".2f", *, reach: float = 0.0) -> Html:
    """Horizontal bars from 0, each with its marks; empty if no bar has a value.

    spec: of the values' text. reach: where the axis ends at the earliest.
    """
    if all(bar.value is None for bar in bars):
        return Html("")
    low, high = _extent(bars, reach)
    kinds = list(dict.fromkeys(kind for bar in bars for kind in bar.marks))[:_DASHES]
    height = _TOP + _ROW * len(bars) + _BOTTOM
    rows = [_row(bar, _TOP + _ROW * index, (low, high), kinds, spec) for index, bar in enumerate(bars)]
    return Html(
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" role="img">'
        f"<title>{escape(title)}</title>{_grid(low, high, height)}{''.join(rows)}</svg>{_key(kinds)}</figure>"
    )


def class_matrix(rows: Mapping[str, Mapping[str, float]], beside: Mapping[str, Mapping[str, float]]) -> Html:
    """Distances of each class's generated images (rows) to each class's real ones (columns).

    The nearest class of a row is marked; the darker a cell, the nearer. beside: small print of a cell, the
    same distance of the class's real images.
    """
    columns = list(rows)
    head = "".join(f"<th>real {escape(slug)}</th>" for slug in columns)
    lines = [f"<tr><th></th>{head}</tr>"]
    for slug, row in rows.items():
        nearest = min(row, key=row.__getitem__)
        cells = "".join(
            _cell(row[other], row[nearest], beside.get(slug, {}).get(other), other == nearest, slug == other)
            for other in columns
            if other in row
        )
        lines.append(f"<tr><th>generated {escape(slug)}</th>{cells}</tr>")
    return Html(f'<div class="scroll"><table class="matrix">{"".join(lines)}</table></div>')


def _cell(value: float, least: float, beside: float | None, is_nearest: bool, is_own: bool) -> str:
    share = 70 * (max(least, 0.0) / value) ** 2 if value > 0 else 70.0
    color = f"background: color-mix(in srgb, var(--bar) {share:.0f}%, transparent)"
    name = ("nearest" if is_own else "nearest stray") if is_nearest else ""
    small = "" if beside is None else f"<br><small>{'floor' if is_own else 'real'} {_figure(beside)}</small>"
    return f'<td class="{name}" style="{color}"><b>{_figure(value)}</b>{small}</td>'


def _figure(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}"


def _extent(bars: Sequence[Bar], reach: float) -> tuple[float, float]:
    """Of all that is drawn, 0 included and never empty."""
    ends = [0.0, reach]
    for bar in bars:
        if bar.value is not None:
            spread = bar.spread or 0.0
            ends += [bar.value - spread, bar.value + spread]
        ends += [end for place in bar.marks.values() for end in place]
    low, high = min(ends), max(ends)
    return (low, high) if high > low else (low, low + 1.0)


def _place(value: float, extent: tuple[float, float]) -> float:
    low, high = extent
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _row(bar: Bar, top: float, extent: tuple[float, float], kinds: Sequence[str], spec: str) -> str:
    middle = top + _ROW / 2
    parts = [_label(_LEFT - 8, middle, bar.label)]
    if bar.value is not None:
        start, end = sorted((_place(0.0, extent), _place(bar.value, extent)))
        box = f'x="{start:.1f}" y="{top + 5}" width="{end - start:.1f}" height="{_ROW - 10}"'
        parts.append(f'<rect class="bar" {box}/>')
        parts.append(_label(_WIDTH - 6, middle, f"{bar.value:{spec}}"))
        if bar.spread:
            first, last = _place(bar.value - bar.spread, extent), _place(bar.value + bar.spread, extent)
            parts.append(f'<path class="whisker" d="M{first:.1f} {middle}H{last:.1f}"/>')
    for kind, places in bar.marks.items():
        for place in places:
            x = _place(place, extent)
            dash = kinds.index(kind) if kind in kinds else _DASHES - 1
            parts.append(f'<path class="mark mark{dash}" d="M{x:.1f} {top + 2}v{_ROW - 4}"/>')
    return "".join(parts)


def _label(end: float, middle: float, words: str) -> str:
    """Text that ends at x = `end`."""
    return f'<text class="label" x="{end}" y="{middle + 4}" text-anchor="end">{escape(words)}</text>'


def _grid(low: float, high: float, height: int) -> str:
    parts = []
    for value in round_ticks(low, high):
        x = _place(value, (low, high))
        name = "zero" if math.isclose(value, 0.0, abs_tol=1e-12) else "grid"
        parts.append(f'<path class="{name}" d="M{x:.1f} {_TOP}V{height - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 7}" text-anchor="middle">{value:g}</text>')
    return "".join(parts)


def _key(kinds: Sequence[str]) -> str:
    """What the marks are."""
    signs = (
        f'<svg width="8" height="16"><path class="mark mark{dash}" d="M4 0v16"/></svg> {escape(kind)}'
        for dash, kind in enumerate(kinds)
    )
    return f'<div class="key">{"".join(signs)}</div>' if kinds else ""
