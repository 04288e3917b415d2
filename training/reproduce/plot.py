"""Dots with whiskers as one SVG picture that needs nothing else."""

from collections.abc import Sequence
from html import escape
from typing import Final

from training.reproduce.curves import colours_of, draw_curves
from training.reproduce.experiment import Curves, Plot

_WIDTH, _LABELS, _RIGHT, _ROW, _HEAD, _FOOT = 760, 260, 70, 26, 44, 40
_INK, _FAINT, _DOT, _REFERENCE = "#333", "#ddd", "#3465a4", "#c0392b"
_TICKS: Final = 5


def draw_plots(plots: Sequence[Plot], curves: Sequence[Curves] = ()) -> str:
    """All plots below one another, each on an axis of its own that starts at what is smallest or at 0."""
    parts, top = [], 0
    pictures = [(_plot(plot), _height(plot)) for plot in plots]
    colours = colours_of(curves)
    pictures += [draw_curves(each, _WIDTH, colours) for each in curves]
    for picture, height in pictures:
        parts.append(f'<g transform="translate(0 {top})">{picture}</g>')
        top += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{max(top, 1)}"'
        f' viewBox="0 0 {_WIDTH} {max(top, 1)}" font-family="sans-serif" font-size="12" fill="{_INK}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _height(plot: Plot) -> int:
    return _HEAD + _ROW * len(plot.dots) + _FOOT


def _plot(plot: Plot) -> str:
    low, high = _range(plot)
    bottom = _HEAD + _ROW * len(plot.dots)
    parts = [f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(plot.title)}</text>']
    for tick in range(_TICKS + 1):
        value = low + (high - low) * tick / _TICKS
        x = _x(value, low, high)
        parts.append(f'<path d="M{x:.1f} {_HEAD - 8}V{bottom}" stroke="{_FAINT}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{value:.3g}</text>')
    for row, dot in enumerate(plot.dots):
        y = _HEAD + _ROW * (row + 0.5)
        parts.append(f'<text x="{_LABELS - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(dot.label)}</text>')
        if dot.reference is not None:
            x = _x(dot.reference, low, high)
            parts.append(f'<path d="M{x:.1f} {y - 8:.1f}v16" stroke="{_REFERENCE}" stroke-width="2"/>')
        if dot.sd:
            ends = _x(dot.value - dot.sd, low, high), _x(dot.value + dot.sd, low, high)
            parts.append(f'<path d="M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}" stroke="{_DOT}" stroke-width="2"/>')
        x = _x(dot.value, low, high)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{_DOT}"/>')
        parts.append(f'<text x="{_WIDTH - 8}" y="{y + 4:.1f}" text-anchor="end">{dot.value:.1f}</text>')
    caption = plot.axis + (f"; red: {plot.reference}" if plot.reference else "")
    parts.append(f'<text x="{_LABELS}" y="{bottom + 30}" fill="#777">{escape(caption)}</text>')
    return "".join(parts)


def _range(plot: Plot) -> tuple[float, float]:
    ends = [value for dot in plot.dots for value in (dot.value - (dot.sd or 0), dot.value + (dot.sd or 0))]
    ends += [dot.reference for dot in plot.dots if dot.reference is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = (high - low) * 0.05 or max(abs(high) * 0.05, 1e-9)
    return low - room, high + room


def _x(value: float, low: float, high: float) -> float:
    return _LABELS + (value - low) / (high - low) * (_WIDTH - _LABELS - _RIGHT)
