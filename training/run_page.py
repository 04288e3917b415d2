"""A run on one page, report.html: curves, sample grids, configuration and history, with nothing to fetch."""

import io
import json
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

from PIL import Image

from model_store.html_page import folded, page, picture, round_ticks, table
from training.run_dir import RunDir

GRIDS: Final = 6
"""Sample grids shown: the last, and earlier ones spread evenly over the run."""
_WIDTH, _HEIGHT = 600, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 28
_POINTS: Final = 400
"""Drawn of a curve; more are averaged."""
_COLORS: Final = 7
"""Of the page's style, `--c0` to `--c6`."""

Points = list[tuple[float, float]]


def write_run_page(run_dir: RunDir) -> Path:
    """Write report.html from what the run folder holds."""
    rows = run_dir.stats()
    title = f"{run_dir.read_config().get('recipe', 'run')}: {run_dir.path.resolve().name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _summary(rows),
        *_curves(rows),
        *_samples(run_dir),
        *_records(run_dir),
    ]
    path = run_dir.path / "report.html"
    partial = path.with_name(".report.html.partial")
    partial.write_text(page(title, body))
    partial.replace(path)
    return path


def _curves(rows: list[dict[str, Any]]) -> list[str]:
    charts = [chart(name, curves) for name, curves in _panels(rows)]
    lead = (
        "<p>KID and Frechet distance are of few images here: follow them, compare them with nothing else.</p>"
    )
    return ["<h2>Curves over images seen</h2>", lead, *charts] if any(charts) else []


def _samples(run_dir: RunDir) -> list[str]:
    grids = [_grid(path) for path in _chosen(sorted((run_dir.path / "samples").glob("*.png")))]
    lead = "<h2>Samples</h2><p>One row a class, always from the same latents; the newest first.</p>"
    return [lead, *grids] if grids else []


def _records(run_dir: RunDir) -> list[str]:
    """How the run came about: its starts, its configuration, the machine."""
    return [
        "<h2>History</h2>",
        table(map(_history_row, run_dir.history()), ("At", "What", "Before", "Device", "Commit", "Changes")),
        "<h2>Details</h2>",
        folded("Configuration", _pre(run_dir.read_config())),
        folded("Environment at the start", _pre(run_dir.environment())),
    ]


def _pre(values: Mapping[str, Any]) -> str:
    return f"<pre>{escape(json.dumps(values, indent=1))}</pre>"


def chart(name: str, curves: Mapping[str, Points]) -> str:
    """A figure with one line per curve. Points that are not finite leave a gap."""
    drawn = {label: _thinned(points) for label, points in curves.items()}
    finite = [point for points in drawn.values() for point in points if math.isfinite(point[1])]
    if not finite:
        return ""
    x_range = min(x for x, _ in finite), max(x for x, _ in finite)
    y_range = min(0.0, *(y for _, y in finite)), max(y for _, y in finite)
    legend, lines = [], []
    is_one = len(drawn) == 1
    for index, (label, points) in enumerate(drawn.items()):
        color = f"var(--c{index % _COLORS})"
        if not is_one:
            legend.append(f'<span style="color:{color}">{escape(label)}</span>')
        path = _path(points, x_range, y_range)
        lines.append(
            f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5" stroke-linecap="round"/>'
        )
    axes = _axes(x_range, y_range)
    return (
        f'<figure style="width:{_WIDTH}px"><figcaption>{escape(name)} {" ".join(legend)}</figcaption>'
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f"<title>{escape(name)}</title>{axes}{''.join(lines)}</svg></figure>"
    )


def _panels(rows: list[dict[str, Any]]) -> Iterable[tuple[str, dict[str, Points]]]:
    """Curves by theme, where any row has them; a term that shares its scale with no other stands alone."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [n for n in names if n in {"loss_D", "loss_G"}]
    logits = [n for n in names if "logit" in n]
    kids = sorted(n for n in names if n.startswith("kid/"))
    frechets = sorted(n for n in names if n.startswith("frechet/"))
    rates = [n for n in names if n.endswith("images_per_second")]
    known = {"time", "images_seen", "score", "nearest/own", *losses, *logits, *kids, *frechets, *rates}
    groups: dict[str, list[str]] = {
        "Losses": losses,
        "KID, EfficientNet-Lite2": kids,
        "Frechet distance, EfficientNet-Lite2": frechets,
        "Mean logits": logits,
        **{_titled(n): [n] for n in names if n not in known},
        "Images/s": rates,
    }
    for title, members in groups.items():
        if members:
            yield title, {_legend(n): _points(rows, n) for n in members}


def _points(rows: list[dict[str, Any]], name: str) -> Points:
    return [(row["images_seen"], row[name]) for row in rows if _number(row.get(name))]


def _legend(name: str) -> str:
    """The panel's title says of which score a class's curve is."""
    return name.removeprefix("kid/").removeprefix("frechet/")


def _titled(name: str) -> str:
    return name.replace("_", " ").replace("/", ": ")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _thinned(points: Points) -> Points:
    step = max(math.ceil(len(points) / _POINTS), 1)
    groups = [points[i : i + step] for i in range(0, len(points), step)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _path(points: Points, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    """A line of SVG; `h0` makes a dot of a point that has no neighbour."""
    parts, command = [], "M"
    for x, y in points:
        if not math.isfinite(y):
            command = "M"
            continue
        parts.append(f"{command}{_scaled(x, x_range, _LEFT, _WIDTH - _RIGHT):.1f} ")
        parts.append(f"{_scaled(y, y_range, _HEIGHT - _BOTTOM, _TOP):.1f}{'h0' if command == 'M' else ''}")
        command = "L"
    return "".join(parts)


def _scaled(value: float, domain: tuple[float, float], start: float, end: float) -> float:
    span = domain[1] - domain[0]
    return start + (value - domain[0]) / span * (end - start) if span else (start + end) / 2


def _axes(x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    parts = []
    for value in round_ticks(*y_range):
        y = _scaled(value, y_range, _HEIGHT - _BOTTOM, _TOP)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in round_ticks(*x_range):
        x = _scaled(value, x_range, _LEFT, _WIDTH - _RIGHT)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{_short(value)}</text>')
    return "".join(parts)


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
    caption = f"{int(path.stem):,} images"
    image_tag = picture(buffer.getvalue(), f"samples after {caption}")
    return f"<figure><figcaption>{caption}</figcaption>{image_tag}</figure>"


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
        f"{entry.get('images_seen', 0):,} images, {entry.get('hours', 0)} h",
        entry["device"],
        entry["commit"],
        changes,
    ]
