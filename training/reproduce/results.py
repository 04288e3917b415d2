"""The page of the comparison, made of finished tables: every number on it is read from their JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from PIL import Image
from pydantic import TypeAdapter, ValidationError

from training.errors import ConfigInvalidError
from training.reproduce.experiment import Report
from training.reproduce.figure3 import figure_file
from training.reproduce.plot import draw_plots
from training.reproduce.render import KINDS, extent_lines, findings_lines, section_lines
from training.reproduce.verdict import RULE, Kind

PAGE: Final = "results.md"
FOLDER: Final = "results"
"""In the documents, beside the page: a JSON file a table, plots, the picture of generated images."""
PICTURE: Final = "figure3.jpg"
_JPEG_QUALITY: Final = 85
TABLES: Final = {
    "table1": "Table I: augmentation",
    "table2": "Table II: ablation",
    "figure3": "Figure 3: generated images",
    "table3": "Table III: classifiers",
    "fewshot": "the few-shot curve",
}
"""What the page may hold, in its order."""
_HEAD: Final = (
    "# The paper's comparison, run",
    "",
    "What `masan reproduce` found when it was run, whatever it was: each table with the paper's column beside"
    " it, the commands that remake it, and what was scaled down. Every number here, and every sentence with a"
    " number, is computed and read from the JSON files beside this page; `masan reproduce results` makes it."
    " How a table is made and what may be compared with what: [the paper's tables](reproduce.md).",
    "",
)


def write_results(out: Path, docs: Path) -> list[Path]:
    """Take the finished tables of a folder over into the documents and write the page; paths written.

    Tables that stand there already and are not in `out` stay. Raises ConfigInvalidError without a table, or
    for one that an older version wrote.
    """
    found = {name: _read(out / f"{name}.json") for name in TABLES if (out / f"{name}.json").is_file()}
    if not found:
        raise ConfigInvalidError(f"--out {out} holds no finished table, such as {out / 'table2.json'}")
    for name, document in found.items():
        report_of(document, out / f"{name}.json")
    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, document in found.items():
        path = folder / f"{name}.json"
        path.write_text(_compact(document))
        written.append(path)
    picture = figure_file(out, with_real=False)
    if "figure3" in found and picture.is_file():
        with Image.open(picture) as image:
            image.convert("RGB").save(folder / PICTURE, quality=_JPEG_QUALITY, optimize=True)
        written.append(folder / PICTURE)
    for path, text in results_pages(docs).items():
        path.write_text(text)
        written.append(path)
    return written


def results_pages(docs: Path) -> dict[Path, str]:
    """The page and its plots as the JSON files in the documents have them; empty without such a file."""
    files = {name: docs / FOLDER / f"{name}.json" for name in TABLES}
    documents = {name: _read(path) for name, path in files.items() if path.is_file()}
    if not documents:
        return {}
    reports = {name: report_of(document, files[name]) for name, document in documents.items()}
    has_picture = (docs / FOLDER / PICTURE).is_file()
    pages = {docs / PAGE: _page(documents, reports, has_picture)}
    for name, report in reports.items():
        if report.plots or report.curves:
            pages[docs / FOLDER / f"{name}.svg"] = draw_plots(report.plots, report.curves)
    return pages


def report_of(document: Mapping[str, Any], path: Path) -> Report:
    """The report as it was written. Raises ConfigInvalidError for a file of an older version."""
    names = Report.__dataclass_fields__
    try:
        return TypeAdapter(Report).validate_python({name: document[name] for name in names})
    except (KeyError, TypeError, ValidationError):
        raise ConfigInvalidError(
            f"{path} was written by another version; run its command again, which keeps what is trained"
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise ConfigInvalidError(f"{path} is no JSON file") from None
    return document


def _compact(document: Mapping[str, Any]) -> str:
    """JSON with one line for each part: half as large as indented, and a difference says where it is."""
    parts = [f"{json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in document.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _page(
    documents: Mapping[str, Mapping[str, Any]], reports: Mapping[str, Report], has_picture: bool
) -> str:
    lines = [*_HEAD, *_summary(reports)]
    for name, report in reports.items():
        lines += _table(name, documents[name]["made"], report, has_picture)
    return "\n".join(lines).rstrip("\n") + "\n"


def _summary(reports: Mapping[str, Report]) -> list[str]:
    """How many comparisons came out how, and what has not been run."""
    kinds: list[Kind] = list(KINDS)
    lines = [
        f"| comparisons | {' | '.join(heading.lower() for heading in KINDS.values())} |",
        f"| --- |{' ---: |' * len(KINDS)}",
    ]
    for name, report in reports.items():
        counts = [sum(finding.kind == kind for finding in report.findings) for kind in kinds]
        if sum(counts):
            lines.append(f"| {TABLES[name]} | {' | '.join(map(str, counts))} |")
    missing = [f"{what} (`masan reproduce {name}`)" for name, what in TABLES.items() if name not in reports]
    told = (
        f"Not run yet: {', '.join(missing)}."
        if missing
        else "No table is missing; its command says which rows."
    )
    return [*([RULE, "", *lines, ""] if len(lines) > 2 else []), told, ""]


def _table(name: str, made: Mapping[str, Any], report: Report, has_picture: bool) -> list[str]:
    lines = [f"## {report.title}", "", "```", made["command"], "```", ""]
    facts = f"Code {made['commit']}, {made['device']}, {made['at'].partition('T')[0]}"
    if made.get("hours") is not None:
        facts += f"; {made['hours']:.3g} h of units"
    lines += [f"{facts}. Everything: [{name}.json]({FOLDER}/{name}.json).", ""]
    lines += extent_lines(made, whole="nothing, it has the paper's counts and widths")
    lines += [*(f"- {note}" for note in report.notes), ""]
    if report.findings:
        lines += findings_lines(report.findings, "###")
    if report.plots or report.curves:
        lines += [f"![{report.title}]({FOLDER}/{name}.svg)", ""]
    if name == "figure3" and has_picture:
        lines += [f"![{report.title}]({FOLDER}/{PICTURE})", ""]
    for section in report.sections:
        lines += [*section_lines(section, "###"), ""]
    return lines
