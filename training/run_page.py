"""A run on one page, report.html: curves, sample grids, configuration and history, with nothing to fetch."""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

from PIL import Image

from training.run_dir import RunDir

GRIDS: Final = 6
"""Sample grids shown: the last, and earlier ones spread evenly over the run."""
_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 28
_POINTS: Final = 400
"""Drawn of a curve; more are averaged."""
_COLORS: Final = ("#3465a4", "#c0392b", "#2e8b57", "#8e44ad", "#d98e04", "#16a085", "#7f8c8d")
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1360px; margin: 2em auto; padding: 0 1em }
figure { display: inline-block; margin: 0 1em 1em 0; vertical-align: top }
figcaption { font-weight: 600 } figcaption span { font-weight: 400; margin-left: .8em }
img { max-width: 100%; image-rendering: auto } table { border-collapse: collapse }
td, th { border-bottom: 1px solid #ddd; padding: .2em .8em .2em 0; text-align: left }
pre { background: #f6f6f6; padding: 1em; overflow: auto } svg { background: #fafafa }
text { font-size: 11px; fill: #555 }
"""

Points = list[tuple[float, float]]


def write_run_page(run_dir: RunDir) -> Path:
    """Write report.html from what the run folder holds."""
    rows = run_dir.stats()
    title = f"{run_dir.read_config().get('recipe', 'run')}: {run_dir.path.resolve().name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _summary(rows),
        "<h2>Curves over images seen</h2>",
        *(chart(name, curves) for name, curves in _panels(rows)),
        "<h2>Samples</h2>",
        "<p>One row a class, always from the same latents.</p>",
        *(_grid(path) for path in _chosen(sorted((run_dir.path / "samples").glob("*.png")))),
        "<h2>History</h2>",
        _table(_history_row(entry) for entry in run_dir.history()),
        "<h2>Configuration</h2>",
        f"<pre>{escape(json.dumps(run_dir.read_config(), indent=1))}</pre>",
        "<h2>Environment at the start</h2>",
        f"<pre>{escape(json.dumps(run_dir.environment(), indent=1))}</pre>",
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    path = run_dir.path / "report.html"
    partial = path.with_name(".report.html.partial")
    partial.write_text(page)
    partial.replace(path)
    return path


def chart(name: str, curves: Mapping[str, Points]) -> str:
    """A figure with one line per curve. Points that are not finite leave a gap."""
    drawn = {label: _thinned(points) for label, points in curves.items()}
    finite = [point for points in drawn.values() for point in points if math.isfinite(point[1])]
    if not finite:
        return ""
    x_range = min(x for x, _ in finite), max(x for x, _ in finite)
    y_range = min(0.0, *(y for _, y in finite)), max(y for _, y in finite)
    legend, lines = [], []
    for index, (label, points) in enumerate(drawn.items()):
        color = _COLORS[index % len(_COLORS)]
        legend.append(f'<span style="color:{color}">{escape(label)}</span>')
        path = _path(points, x_range, y_range)
        lines.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    axes = _axes(x_range, y_range)
    return (
        f"<figure><figcaption>{escape(name)}{''.join(legend)}</figcaption>"
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img">{axes}{"".join(lines)}</svg></figure>'
    )


def _panels(rows: list[dict[str, Any]]) -> Iterable[tuple[str, dict[str, Points]]]:
    """Curves by theme; a name appears where any row has it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [n for n in names if n in {"loss_D", "loss_G"}]
    logits = [n for n in names if "logit" in n]
    kids = sorted(n for n in names if n.startswith("kid/"))
    frechets = sorted(n for n in names if n.startswith("frechet/"))
    known = {"time", "images_seen", "images_per_second", "score", "nearest/own"}
    known |= {*losses, *logits, *kids, *frechets}
    groups: dict[str, list[str]] = {
        "Losses": losses,
        "KID, EfficientNet-Lite2 (few images: follow it, compare with nothing else)": kids,
        "Frechet distance, EfficientNet-Lite2 (the same)": frechets,
        "Mean logits": logits,
        "Other terms": [n for n in names if n not in known],
        "Images/s": [n for n in names if n == "images_per_second"],
    }
    for title, members in groups.items():
        if members:
            yield title, {n: [(r["images_seen"], r[n]) for r in rows if _number(r.get(n))] for n in members}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _thinned(points: Points) -> Points:
    step = max(math.ceil(len(points) / _POINTS), 1)
    groups = [points[i : i + step] for i in range(0, len(points), step)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _path(points: Points, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    parts, command = [], "M"
    for x, y in points:
        if not math.isfinite(y):
            command = "M"
            continue
        parts.append(f"{command}{_scaled(x, x_range, _LEFT, _WIDTH - _RIGHT):.1f} ")
        parts.append(f"{_scaled(y, y_range, _HEIGHT - _BOTTOM, _TOP):.1f}")
        command = "L"
    return "".join(parts)


def _scaled(value: float, domain: tuple[float, float], start: float, end: float) -> float:
    span = domain[1] - domain[0]
    return start + (value - domain[0]) / span * (end - start) if span else (start + end) / 2


def _axes(x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    parts = []
    for value in _ticks(*y_range):
        y = _scaled(value, y_range, _HEIGHT - _BOTTOM, _TOP)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e2e2e2"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(*x_range):
        x = _scaled(value, x_range, _LEFT, _WIDTH - _RIGHT)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{_short(value)}</text>')
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(step * k, 10) for k in range(first, last + 1)]


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _chosen(paths: list[Path]) -> list[Path]:
    """The last grid first, then earlier ones spread evenly."""
    if len(paths) <= GRIDS:
        return paths[::-1]
    return [paths[round(i * (len(paths) - 1) / (GRIDS - 1))] for i in reversed(range(GRIDS))]


def _grid(path: Path) -> str:
    with Image.open(path) as image:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = f"{int(path.stem):,} images"
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img alt="samples after {caption}" src="data:image/jpeg;base64,{data}"></figure>'
    )


def _summary(rows: list[dict[str, Any]]) -> str:
    scored = [row for row in rows if "score" in row]
    seen = max((row.get("images_seen", 0) for row in rows), default=0)
    text = f"{seen:,} images seen."
    if scored:
        best = min(scored, key=lambda row: float(row["score"]))
        text += f" Best mean KID {best['score']:.4f}, after {best['images_seen']:,} images (best.pt)"
        text += f"; last {scored[-1]['score']:.4f}."
    if any("diverged" in row for row in rows):
        text += " The run diverged; state.pt is the last good state."
    return f"<p>{escape(text)}</p>"


def _history_row(entry: Mapping[str, Any]) -> list[str]:
    parent = entry.get("grown_from")
    origin = f" from {parent['run']} at {parent['resolution']} px" if parent else ""
    changes = ", ".join(entry.get("changes", []))
    return [
        entry["at"],
        entry["how"] + origin,
        f"{entry.get('images_seen', 0):,} images, {entry.get('hours', 0)} h before",
        entry["device"],
        f"commit {entry['commit']}",
        changes,
    ]


def _table(rows: Iterable[list[str]]) -> str:
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
