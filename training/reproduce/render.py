"""A report as Markdown, JSON and SVG, each of which tells how it was made."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.reproduce.experiment import Report, Section
from training.reproduce.plot import draw_plots

SCHEMA_VERSION = 1


def write_report(report: Report, name: str, folder: Path, made: Mapping[str, Any]) -> list[Path]:
    """Write `name`.md, .json and, with plots, .svg; paths in that order.

    made: how it came about: command, scale, dropped, dataset, device, versions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "md": markdown(report, name, made),
        "json": json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "name": name,
                "title": report.title,
                "made": dict(made),
                "notes": list(report.notes),
                "figures": report.figures,
            },
            indent=1,
        )
        + "\n",
    }
    if report.plots:
        contents["svg"] = draw_plots(report.plots)
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        partial = path.with_suffix(".partial")
        partial.write_text(content)
        partial.replace(path)
        paths.append(path)
    return paths


def markdown(report: Report, name: str, made: Mapping[str, Any]) -> str:
    """The whole report on one page."""
    dataset = made["dataset"]
    counts = ", ".join(f"{slug} {count}" for slug, count in dataset["images_per_class"].items())
    lines = [
        f"# {report.title}",
        "",
        f"Made by `{made['command']}` at {made['at']}, code {made['commit']}, on {made['device']};"
        f" {made['hours']:.3g} h of units.",
        "",
        f"Images: {counts}; digest {dataset['digest'][:16]}.",
        "",
        "Scaled down against the paper: " + ("; ".join(made["dropped"]) or "nothing") + ".",
        "",
        *(f"- {note}" for note in report.notes),
        "",
    ]
    if report.plots:
        lines += [f"![{report.title}]({name}.svg)", ""]
    for section in report.sections:
        lines += [*_section(section), ""]
    return "\n".join(lines)


def _section(section: Section) -> list[str]:
    alignment = ["---", *["---:"] * (len(section.header) - 1)]
    lines = [f"## {section.title}", "", _row(section.header), _row(alignment)]
    lines += [_row(row) for row in section.rows]
    return [*lines, "", section.note] if section.note else lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
