"""A report's page, per extractor: every figure beside its floor, plots, the class matrix. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Final

from model_store.html_page import Html, folded, named, table
from model_store.report import (
    ClassFigures,
    CmmdReport,
    ExtractorReport,
    FloorFigures,
    MeanFigures,
    QualityReport,
)
from model_store.report_charts import Bar, bar_chart, class_matrix, floor_marks


@dataclass(frozen=True)
class _Measure:
    """A figure of ClassFigures: how it is named, written, explained and drawn.

    floor: what to call the score of real images. reach: where a plot's axis ends at the earliest.
    """

    field: str
    name: str
    spec: str
    meaning: str
    floor: str = "floor"
    reach: float = 0.0


def _share(field: str, meaning: str) -> _Measure:
    return _Measure(field, field.capitalize(), ".3f", meaning, floor="real", reach=1.0)


_DISTANCE: Final = _Measure(
    "frechet_distance",
    "Frechet distance",
    ".1f",
    "How far the generated images as a whole lie from the real ones. Lower is better; few images raise it.",
)
_KID: Final = _Measure(
    "kid",
    "KID",
    ".4f",
    "The same question without the bias of few images; as good as real is 0. Rank by it. ± over subsets.",
)
_SHARES: Final = (
    _share("precision", "Share of generated images that look like real ones."),
    _share("recall", "Share of real images that the generator could have made: variety."),
    _share("density", "How densely real images surround the generated ones; real is 1."),
    _share("coverage", "Share of real images with a generated one among their nearest."),
)
_MMD: Final = _Measure(
    "mmd", "MMD x 1000", ".3f", "Distance of the average image; blind to variety. Lower is better."
)


def extractor_section(report: ExtractorReport, *, is_primary: bool) -> str:
    """Every class under one extractor: table, plots, class matrix."""
    distance = _distance_of(report)
    measures = [
        measure
        for measure in (distance, _KID, *_SHARES, _MMD)
        if any(getattr(figures, measure.field) is not None for figures in report.classes.values())
    ]
    role = (
        "Its features may have guided the training, so the other judges count more."
        if is_primary
        else "No discriminator has seen its features."
    )
    named = (
        ""
        if report.is_inception
        else " Not Inception, so its Frechet distance is no FID and compares with none."
    )
    return "".join(
        (
            f"<h2>{escape(report.extractor)}</h2><p>{role}{named} Small print: what real images score.</p>",
            _figure_table(report, measures),
            _pooled(report),
            "".join(_chart(report, measure) for measure in measures if measure is not _MMD),
            _matrices(report),
        )
    )


def _distance_of(report: ExtractorReport) -> _Measure:
    if not report.is_inception:
        return _DISTANCE
    return replace(_DISTANCE, name="FID")


def _figure_table(report: ExtractorReport, measures: Sequence[_Measure]) -> str:
    rows: list[list[str]] = [
        [
            named("Images", "Real and generated; the floor is of as many real images a side as it says."),
            *(
                Html(f"{f.n_real:,} real<br>{f.n_fake:,} generated<small>floor at {f.floor_n:,}</small>")
                for f in report.classes.values()
            ),
            "",
        ]
    ]
    for measure in measures:
        cells = [_cell(figures, measure) for figures in report.classes.values()]
        rows.append([named(measure.name, measure.meaning), *cells, _cell(report.mean, measure)])
    head = ("", *report.classes, "mean")
    return Html(f'<div class="figures">{table(rows, head)}</div>')


def _cell(figures: ClassFigures | MeanFigures, measure: _Measure) -> Html:
    """The figure, and in small print its floors."""
    value: float | None = getattr(figures, measure.field)
    if value is None:
        return Html("-")
    written = f"{value:{measure.spec}}"
    if measure is _KID and isinstance(figures, ClassFigures):
        written += f" ± {figures.kid_sd:{measure.spec}}"
    small = []
    random = _floor_of(figures, measure)
    if random is not None:
        spread = _spread_of(figures.floor_figures, measure)
        small.append(
            f"{measure.floor} {random:{measure.spec}}" + (f" ± {spread:{measure.spec}}" if spread else "")
        )
    blocked = _blocked_of(figures, measure)
    if blocked is not None:
        small.append(f"other slides {blocked:{measure.spec}}")
    return Html(f"<b>{written}</b>{''.join(f'<small>{line}</small>' for line in small)}")


def _floor_of(figures: ClassFigures | MeanFigures, measure: _Measure) -> float | None:
    """What random halves of the real images score. Reports of version 1 know it for two figures only."""
    if figures.floor_figures is not None:
        floor: float | None = getattr(figures.floor_figures, measure.field)
        return floor
    if measure.field == _DISTANCE.field:
        return figures.floor
    return figures.kid_floor if measure is _KID and isinstance(figures, ClassFigures) else None


def _blocked_of(figures: ClassFigures | MeanFigures, measure: _Measure) -> float | None:
    """What other slides of the same class score."""
    if figures.floor_blocked_figures is not None:
        blocked: float | None = getattr(figures.floor_blocked_figures, measure.field)
        return blocked
    if measure.field == _DISTANCE.field and isinstance(figures, ClassFigures):
        return figures.floor_blocked
    return None


def _spread_of(floor: FloorFigures | None, measure: _Measure) -> float | None:
    """Standard deviation of a floor over its splits."""
    spread: float | None = getattr(floor, f"{measure.field}_sd", None)
    return spread


def _pooled(report: ExtractorReport) -> str:
    pooled = report.pooled
    if pooled is None:
        return ""
    return (
        f"<p>All classes at once, {pooled.n_fake:,} generated against {pooled.n_real:,} real images:"
        f" {_distance_of(report).name} <b>{pooled.frechet_distance:.1f}</b> (floor {pooled.floor:.1f} at"
        f" {pooled.floor_n:,} a side), KID <b>{pooled.kid:.4f}</b> ± {pooled.kid_sd:.4f}"
        f" (floor {pooled.kid_floor:.4f}).</p>"
    )


def _chart(report: ExtractorReport, measure: _Measure) -> str:
    bars = []
    for slug, figures in report.classes.items():
        marks = floor_marks(_floor_of(figures, measure), _blocked_of(figures, measure))
        spread = figures.kid_sd if measure is _KID else None
        bars.append(Bar(slug, getattr(figures, measure.field), spread, marks))
    return bar_chart(measure.name, bars, measure.spec, reach=measure.reach)


def _matrices(report: ExtractorReport) -> str:
    """Which class each class's generated images are nearest to."""
    classes = report.classes
    if len(classes) < 2 or not all(figures.distance_to for figures in classes.values()):
        return ""
    beside = {slug: f.real_distance_to | {slug: f.floor} for slug, f in classes.items()}
    factors = (
        f"{slug} {factor:.2f}" for slug in classes if (factor := report.diagonal_factor(slug)) is not None
    )
    parts = [
        f"<h3>{_distance_of(report).name} to every class, {escape(report.extractor)}</h3>",
        "<p>The nearest class of a row is framed: green where it is the class's own, red where a label would"
        " be wrong. Small print: the same from the class's real images. The next class lies this many times"
        f" as far as the own one: {escape(', '.join(factors))}.</p>",
        class_matrix({slug: f.distance_to for slug, f in classes.items()}, beside),
    ]
    if all(figures.kid_to for figures in classes.values()):
        kid_beside = {
            slug: f.real_kid_to | ({} if f.kid_floor is None else {slug: f.kid_floor})
            for slug, f in classes.items()
        }
        kids = class_matrix({slug: f.kid_to for slug, f in classes.items()}, kid_beside)
        parts.append(folded("The same in KID", kids))
    return "".join(parts)


def cmmd_section(report: QualityReport) -> str:
    """CMMD and FID, or why there is none."""
    reasons = {"FID": report.fid_reason, "CMMD": report.cmmd_reason}
    missing = [f"<li>{name}: {escape(reason)}</li>" for name, reason in reasons.items() if reason]
    parts = [_cmmd(report.cmmd)] if report.cmmd else []
    if missing:
        parts.append(f"<h2>Not computed</h2><ul>{''.join(missing)}</ul>")
    return "".join(parts)


def _cmmd(report: CmmdReport) -> str:
    bars = [
        Bar(slug, figures.cmmd, None, floor_marks(figures.floor, figures.floor_blocked))
        for slug, figures in report.classes.items()
    ]
    return (
        f"<h2>CMMD on {escape(report.extractor)}</h2><p>Distance of the average CLIP embedding, mean"
        f" <b>{report.mean:.3f}</b>. Blind to variety: read it with recall and coverage."
        f" {escape(report.preprocessing)}, weights <code>{report.extractor_sha256}</code>.</p>"
        f"{bar_chart('CMMD', bars, '.3f')}"
    )
