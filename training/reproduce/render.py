"""A report as Markdown, JSON and SVG, each of which tells how it was made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from training.reproduce.experiment import Report, Section
from training.reproduce.plot import draw_plots
from training.reproduce.verdict import RULE, Finding, Kind

SCHEMA_VERSION: Final = 1
KINDS: Final[dict[Kind, str]] = {
    "holds": "As the paper reports",
    "fails": "Against the paper",
    "new": "Not in the paper",
    "open": "Too small to tell",
}
"""Headings of the findings."""


def write_report(report: Report, name: str, folder: Path, made: Mapping[str, Any]) -> list[Path]:
    """Write `name`.md, .json and, with plots, .svg; paths in that order.

    made: how it came about: command, at, commit, device; hours, scale, dropped, dataset where there are any.
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
                "findings": [asdict(finding) for finding in report.findings],
                "sections": [asdict(section) for section in report.sections],
                "plots": [asdict(plot) for plot in report.plots],
                "curves": [asdict(curves) for curves in report.curves],
                "figures": report.figures,
            },
            indent=1,
        )
        + "\n",
    }
    if report.plots or report.curves:
        contents["svg"] = draw_plots(report.plots, report.curves)
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
    origin = f"Made by `{made['command']}` at {made['at']}, code {made['commit']}, on {made['device']}"
    hours = f"; {made['hours']:.3g} h of units" if "hours" in made else ""
    lines = [f"# {report.title}", "", f"{origin}{hours}.", ""]
    lines += extent_lines(made, whole="nothing")
    lines += [*(f"- {note}" for note in report.notes), ""]
    if report.findings:
        lines += [*findings_lines(report.findings), RULE, ""]
    if report.plots or report.curves:
        lines += [f"![{report.title}]({name}.svg)", ""]
    for section in report.sections:
        lines += [*section_lines(section), ""]
    return "\n".join(lines)


def extent_lines(made: Mapping[str, Any], *, whole: str) -> list[str]:
    """On which images a report was made, and what was scaled down; `whole` where nothing was."""
    lines = []
    if "dataset" in made:
        dataset = made["dataset"]
        counts = ", ".join(f"{slug} {count}" for slug, count in dataset["images_per_class"].items())
        lines += [f"Images: {counts}; digest {dataset['digest'][:16]}.", ""]
    if "dropped" in made:
        lines += [f"Scaled down against the paper: {'; '.join(made['dropped']) or whole}.", ""]
    return lines


def findings_lines(findings: Sequence[Finding], level: str = "##") -> list[str]:
    """Findings under the heading of their kind, in their order; kinds without one are left out."""
    lines = []
    for kind, heading in KINDS.items():
        texts = [f"- {finding.text}" for finding in findings if finding.kind == kind]
        if texts:
            lines += [f"{level} {heading}", "", *texts, ""]
    return lines


def section_lines(section: Section, level: str = "##") -> list[str]:
    """A table with its heading and note."""
    alignment = ["---", *["---:"] * (len(section.header) - 1)]
    lines = [f"{level} {section.title}", "", _row(section.header), _row(alignment)]
    lines += [_row(row) for row in section.rows]
    return [*lines, "", section.note] if section.note else lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
