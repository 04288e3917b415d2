"""Curves over a few places, with whiskers, as a part of an SVG picture."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from training.reproduce.experiment import Curves, Line

_LEFT, _RIGHT, _TOP, _HEIGHT, _ROW = 60, 250, 44, 220, 18
_FAINT: Final = "#ddd"
_COLOURS: Final = ("#333", "#3465a4", "#c0392b", "#2e7d32", "#8e44ad", "#d68910", "#888")
"""One a row; an eighth begins anew."""
_TICKS: Final = 5
_APART: Final = 3.0
"""Pixels between the whiskers of two lines at one place."""


def colours_of(pictures: Sequence[Curves]) -> dict[str, str]:
    """A colour for every row, the same in all pictures."""
    labels = dict.fromkeys(line.label for curves in pictures for line in curves.lines)
    return {label: _COLOURS[number % len(_COLOURS)] for number, label in enumerate(labels)}


def draw_curves(curves: Curves, width: int, colours: Mapping[str, str]) -> tuple[str, int]:
    """The picture's inside and its height, px. A line without a value at a place goes on after it.

    colours: by label.
    """
    low, high = _range(curves)
    bottom = _TOP + _HEIGHT
    right = width - _RIGHT

    def y_of(value: float) -> float:
        return bottom - (value - low) / (high - low) * _HEIGHT

    def x_of(place: int, line: int) -> float:
        step = (right - _LEFT) / max(len(curves.places), 1)
        shift = (line - (len(curves.lines) - 1) / 2) * _APART
        return _LEFT + (place + 0.5) * step + shift

    parts = [f'<text x="10" y="20" font-size="14" font-weight="bold">{escape(curves.title)}</text>']
    for tick in range(_TICKS + 1):
        value = low + (high - low) * tick / _TICKS
        y = y_of(value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="{_FAINT}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#777">{value:.3g}</text>'
        )
    centre = (len(curves.lines) - 1) / 2
    for place, name in enumerate(curves.places):
        x = x_of(place, 0) + centre * _APART
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(name)}</text>')
    for number, line in enumerate(curves.lines):
        colour = colours[line.label]
        points = [
            (x_of(place, number), value) for place, value in enumerate(line.values) if value is not None
        ]
        parts.append(_line([(x, y_of(mean)) for x, (mean, _) in points], colour))
        parts += [
            f'<path d="M{x:.1f} {y_of(mean - sd):.1f}V{y_of(mean + sd):.1f}" stroke="{colour}"/>'
            for x, (mean, sd) in points
            if sd
        ]
        parts += [
            f'<circle cx="{x:.1f}" cy="{y_of(mean):.1f}" r="3.5" fill="{colour}"/>' for x, (mean, _) in points
        ]
        y = _TOP + 12 + number * _ROW
        parts.append(f'<path d="M{right + 14} {y - 4}h14" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{right + 34}" y="{y}">{escape(line.label)}</text>')
    caption = f"{curves.axis}; along: {curves.along}"
    parts.append(f'<text x="{_LEFT}" y="{bottom + 38}" fill="#777">{escape(caption)}</text>')
    return "".join(parts), max(bottom, _TOP + len(curves.lines) * _ROW) + 54


def _line(points: list[tuple[float, float]], colour: str) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>' if points else ""


def _range(curves: Curves) -> tuple[float, float]:
    ends = [end for line in curves.lines for end in _ends(line)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = (high - low) * 0.05 or max(abs(high) * 0.05, 1e-9)
    return low - room, high + room


def _ends(line: Line) -> list[float]:
    known = [value for value in line.values if value is not None]
    return [end for mean, sd in known for end in (mean - (sd or 0), mean + (sd or 0))]
