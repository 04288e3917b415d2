"""A quality report as one self-contained HTML page. Torch-free.

What each figure says and what it hides is told in a sentence here, in a paragraph in docs/evaluation.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from model_store.html_page import Html, folded, page, picture, table, text
from model_store.report import QualityReport, read_report
from model_store.report_charts import CHART_STYLE
from model_store.report_check_sections import memorisation_section, pixel_section, utility_section
from model_store.report_extractor_sections import cmmd_section, extractor_section
from model_store.report_verdicts import verdicts
from model_store.store import Checkpoint, ModelStore

REPORT_PAGE_FILE: Final = "report.html"
THUMBNAIL_PX: Final = 128
"""Side of a picture on the page."""
_PAIR_PX: Final = 192

_STYLE: Final = (
    CHART_STYLE
    + """
ul.verdicts { list-style: none; padding: 0 } .verdicts li { margin: .35em 0; padding-left: 4.2em }
.verdicts b { display: inline-block; width: 3.4em; margin-left: -4.2em; margin-right: .8em;
  color: var(--paper); text-align: center; border-radius: 4px; font-size: 12px; text-transform: uppercase }
.pass { background: var(--good) } .look { background: var(--warn) } .fail { background: var(--bad) }
.figures td { white-space: nowrap } .figures th small { display: block; font-weight: 400; max-width: 30em }
.figures td small { display: block; white-space: normal; max-width: 26em }
code { overflow-wrap: anywhere; font-size: 12px }
.sheet { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 1em } .sheet img { border-radius: 3px }
.notice { border: 3px solid var(--bad); padding: .6em 1em; font-size: 18px }
.pairs figure { width: 392px } .pairs figcaption { font-weight: 400; font-size: 12px }
"""
)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An encoded picture (JPEG, PNG or WebP) and what it shows."""

    content: bytes
    caption: str


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A generated image beside a real one; relation: how alike they are, in words."""

    generated: Thumbnail
    real: Thumbnail
    relation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PatientImages:
    """Real images for the eyes of those who have them anyway, by class of the generated one.

    neighbours: the real image nearest to each generated one. flagged: generated images that are too like a
    training image, beside it.
    """

    neighbours: Mapping[str, Sequence[ImagePair]]
    flagged: Mapping[str, Sequence[ImagePair]]


Sheets = Mapping[str, Sequence[Thumbnail]]
"""Generated images by class."""


def render_report(report: QualityReport, sheets: Sheets | None = None, *, checkpoint: str = "") -> str:
    """The page of a report; it may be stored and served. checkpoint: `name@version`.

    Raises ValueError for a thumbnail that is no JPEG, PNG or WebP.
    """
    name = checkpoint or report.digest[:16]
    body = [f"<h1>Quality report of {escape(name)}</h1>", *_sections(report, sheets or {}, checkpoint)]
    return page(f"Quality report of {name}", body, head=_mark(report), style=_STYLE)


def render_private_report(
    report: QualityReport, sheets: Sheets, patients: PatientImages, *, checkpoint: str = ""
) -> str:
    """The page with patient images on it, which it says: neither stored nor served. See `render_report`."""
    name = checkpoint or report.digest[:16]
    body = [
        f"<h1>Quality report of {escape(name)}</h1>",
        '<p class="notice"><b>This page holds images of patients. Do not share, publish or upload it;'
        " delete it when you have looked.</b> Without --with-real the page has none of them.</p>",
        *_sections(report, sheets, checkpoint),
        *_patient_sections(patients),
    ]
    return page(f"PATIENT IMAGES - quality report of {name}", body, style=_STYLE)


def read_report_page(store: ModelStore, checkpoint: Checkpoint) -> str | None:
    """The page stored with a checkpoint, else one made of its report; None if it has no report.

    A stored page of another report than the checkpoint's present one, or with patient images, is not given.
    Raises what `read_report` raises.
    """
    report = read_report(store, checkpoint)
    if report is None:
        return None
    if any(entry.path == REPORT_PAGE_FILE for entry in checkpoint.manifest.reports):
        stored = store.read_file(checkpoint, REPORT_PAGE_FILE).decode(errors="replace")
        if _mark(report) in stored:
            return stored
    return render_report(report, checkpoint=checkpoint.reference)


def _mark(report: QualityReport) -> str:
    """Tells of which report a page is; a page with patient images never has it."""
    return f'<meta name="masan-report" content="{report.digest} {report.created_at.isoformat()}">'


def _sections(report: QualityReport, sheets: Sheets, checkpoint: str) -> Iterable[str]:
    yield _verdict_list(report)
    yield _facts(report, checkpoint)
    yield _contact_sheets(sheets, report)
    for extractor in report.extractors:
        yield extractor_section(extractor, is_primary=extractor is report.primary)
    yield cmmd_section(report)
    yield pixel_section(report.checks)
    yield memorisation_section(report)
    yield utility_section(report.utility)
    if report.notes:
        yield f"<h2>Notes</h2><p>{escape(report.notes)}</p>"
    yield ('<p class="dim">What each figure says, and what it hides: <code>docs/evaluation.md</code>.</p>')


def _verdict_list(report: QualityReport) -> str:
    items = (f'<li><b class="{v.level}">{v.level}</b>{escape(v.text)}</li>' for v in verdicts(report))
    return f'<ul class="verdicts">{"".join(items)}</ul>'


def _facts(report: QualityReport, checkpoint: str) -> str:
    """What was judged, and how: all that two reports must share to be compared."""
    primary = report.primary
    unique = {None: "not told", True: "yes, near-duplicates were removed", False: "no"}[report.deduplicated]
    rows = [
        ("Checkpoint", text(checkpoint) if checkpoint else text("as given by the digest")),
        ("Digest", _code(report.digest)),
        ("Judged", f"{report.created_at:%Y-%m-%d %H:%M} UTC"),
        ("Images", f"{primary.n_fake:,} generated, {primary.n_real:,} real, {len(primary.classes)} classes"),
        ("Drawn with", f"seed {report.seed}, truncation {report.truncation:g}"),
        ("Real images deduplicated", unique),
        ("Reference digest", _code(primary.reference_digest)),
    ]
    judges = [
        (
            extractor.extractor,
            "may have guided the training" if extractor is primary else "has guided none",
            extractor.preprocessing,
            _code(extractor.extractor_sha256),
        )
        for extractor in report.extractors
    ]
    head = ("Feature extractor", "Its features", "Preprocessing", "sha256 of its weights")
    return f"{table(rows)}{table(judges, head)}"


def _code(value: str) -> Html:
    return Html(f"<code>{escape(value)}</code>")


def _contact_sheets(sheets: Sheets, report: QualityReport) -> str:
    if not sheets:
        return ""
    rows = (
        f"<h3>{escape(slug)}</h3>"
        f'<div class="sheet">{"".join(picture(t.content, t.caption, THUMBNAIL_PX) for t in thumbnails)}</div>'
        for slug, thumbnails in sheets.items()
    )
    lead = (
        f"<p>The first of seed {report.seed}, not chosen. Reduced and compressed here; figures are of the"
        " full images.</p>"
    )
    return f"<h2>Generated images</h2>{lead}{''.join(rows)}"


def _patient_sections(patients: PatientImages) -> Iterable[str]:
    if any(patients.flagged.values()):
        yield "<h2>Flagged: generated images beside the training images they are too like</h2>"
        yield from (_pairs(slug, pairs) for slug, pairs in patients.flagged.items() if pairs)
    yield "<h2>Nearest real images</h2><p>Left: generated. Right: the nearest real image of any class.</p>"
    yield from (_pairs(slug, pairs) for slug, pairs in patients.neighbours.items() if pairs)


def _pairs(slug: str, pairs: Sequence[ImagePair]) -> str:
    figures = (
        f"<figure>{picture(pair.generated.content, pair.generated.caption, _PAIR_PX)}"
        f" {picture(pair.real.content, pair.real.caption, _PAIR_PX)}"
        f"<figcaption>{escape(pair.generated.caption)} | {escape(pair.real.caption)}<br>"
        f"{escape(pair.relation)}</figcaption></figure>"
        for pair in pairs
    )
    return folded(f"{slug}: {len(pairs)}", f'<div class="pairs">{"".join(figures)}</div>', is_open=True)
