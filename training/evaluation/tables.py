"""A report on the terminal: every figure with its floors under it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import RenderableType
from rich.table import Table

from model_store.report import (
    ClassChecks,
    ClassFigures,
    ColorFigures,
    CopyingFigures,
    ExtractorReport,
    FloorFigures,
    MeanFigures,
    QualityReport,
    Utility,
)

_FIGURES = (
    ("frechet_distance", "Frechet", ".1f"),
    ("kid", "KID", ".4f"),
    ("mmd", "MMD", ".3f"),
    ("precision", "precision", ".3f"),
    ("recall", "recall", ".3f"),
    ("density", "density", ".3f"),
    ("coverage", "coverage", ".3f"),
)
_LEGEND = "Under each figure: what random halves, then other series, of the real images score."

_ClassRow = tuple[str, Callable[[ClassFigures], str]]
_CheckRow = tuple[str, Callable[[ClassChecks], str]]


def report_tables(report: QualityReport) -> Iterator[RenderableType]:
    """What a reader should see of a report, in order."""
    yield _LEGEND
    for extractor in report.extractors:
        yield extractor_table(extractor)
        if (pooled := extractor.pooled) is not None:
            yield (
                f"all classes at once, {pooled.n_fake} generated against {pooled.n_real} real:"
                f" Frechet {pooled.frechet_distance:.1f} (floor {pooled.floor:.1f}),"
                f" KID {pooled.kid:.4f} ± {pooled.kid_sd:.4f} (floor {pooled.kid_floor:.4f})"
            )
    if report.fid_reason is not None:
        yield f"FID: none, {report.fid_reason}"
    yield _cmmd_line(report)
    if report.checks:
        yield _checks_table(report)
    if report.utility is not None:
        yield from _utility_lines(report.utility, len(report.primary.classes))


def extractor_table(report: ExtractorReport) -> Table:
    """One column a class, then the mean."""
    title = f"{report.extractor} ({report.extractor_sha256[:8]}, {report.preprocessing})"
    table = _table(title, [*report.classes, "mean"])
    classes = list(report.classes.values())
    table.add_row("generated / real", *(f"{c.n_fake} / {c.n_real}" for c in classes), "")
    columns: list[ClassFigures | MeanFigures] = [*classes, report.mean]
    for name, label, spec in _FIGURES:
        table.add_row(label, *(_with_floors(figures, name, spec) for figures in columns))
    table.add_row(
        "nearest class",
        *(_nearest(report, slug) for slug in report.classes),
        {True: "each its own", False: "NOT its own", None: ""}[report.diagonal_wins],
    )
    for label, show in _COPYING_ROWS:
        if any(c.copying is not None for c in classes):
            table.add_row(label, *(show(c) for c in classes), "")
    return table


def _with_floors(figures: ClassFigures | MeanFigures, name: str, spec: str) -> str:
    value = format_optional(getattr(figures, name), spec)
    if name == "kid" and isinstance(figures, ClassFigures):
        value += f" ± {figures.kid_sd:{spec}}"
    floors: list[FloorFigures | None] = [figures.floor_figures, figures.floor_blocked_figures]
    if floors == [None, None]:
        return value
    shown = " | ".join(
        "-" if floor is None else format_optional(getattr(floor, name), spec) for floor in floors
    )
    return f"{value}\n[dim]{shown}[/dim]"


def _nearest(report: ExtractorReport, slug: str) -> str:
    nearest, factor = report.nearest_class(slug), report.diagonal_factor(slug)
    if nearest is None or factor is None:
        return "-"
    return f"own, by {factor:.2f}x" if nearest == slug else f"{nearest}!"


def _authenticity(copying: CopyingFigures) -> str:
    floor = f"{copying.authenticity_floor:.3f} ± {copying.authenticity_floor_sd:.3f}"
    return f"{copying.authenticity:.3f}\n[dim]{floor}[/dim]"


def _c_t(copying: CopyingFigures) -> str:
    value = "not interpretable" if copying.c_t is None else f"{copying.c_t:.1f}"
    return f"{value}\n[dim]{copying.c_t_floor:.1f}[/dim]"


_COPYING_ROWS: tuple[_ClassRow, ...] = (
    ("authenticity", lambda c: "-" if c.copying is None else _authenticity(c.copying)),
    ("C_T", lambda c: "-" if c.copying is None else _c_t(c.copying)),
)


def _color_row(show: Callable[[ColorFigures], str]) -> Callable[[ClassChecks], str]:
    return lambda checks: "-" if checks.color is None else show(checks.color)


_CHECK_ROWS: tuple[_CheckRow, ...] = (
    ("images", lambda c: str(c.n)),
    ("copies", lambda c: _beside(c.memorized_ratio, c.memorized_ratio_real, ".1%")),
    ("similarity p99", lambda c: _beside(c.similarity_p99, c.similarity_real_p99, ".2f")),
    ("similarity max", lambda c: format_optional(c.similarity_max, ".2f")),
    ("scale bars", lambda c: _beside(c.scale_bar_ratio, c.scale_bar_ratio_real, ".1%")),
    ("label agreement", lambda c: _beside(c.label_agreement_ratio, c.label_agreement_ratio_real, ".1%")),
    ("luma delta (sd real)", lambda c: _beside(c.luma_delta, c.luma_sd_real, "+.1f")),
    ("RGB delta", _color_row(lambda c: " ".join(f"{delta:+.1f}" for delta in c.rgb_delta))),
    ("luma Wasserstein", _color_row(lambda c: _beside(c.luma_wasserstein, c.luma_wasserstein_floor, ".1f"))),
    ("background luma", _color_row(lambda c: _beside(c.background_luma, c.background_luma_real, ".0f"))),
    ("dark pixels", _color_row(lambda c: _beside(c.dark_ratio, c.dark_ratio_real, ".2%"))),
)


def _checks_table(report: QualityReport) -> Table:
    table = _table("pixels: generated (real)", list(report.checks))
    for label, show in _CHECK_ROWS:
        table.add_row(label, *(show(checks) for checks in report.checks.values()))
    return table


def _cmmd_line(report: QualityReport) -> str:
    if report.cmmd is None:
        return f"CMMD: none, {report.cmmd_reason}" if report.cmmd_reason else "CMMD: none"
    return "CMMD: " + ", ".join(
        f"{slug} {figures.cmmd:.3f} (floor {figures.floor:.3f}"
        f" | {format_optional(figures.floor_blocked, '.3f')})"
        for slug, figures in report.cmmd.classes.items()
    )


def _utility_lines(utility: Utility, class_count: int) -> Iterator[str]:
    yield (
        f"linear classifier on {utility.extractor}, {utility.n_test} unseen real images:"
        f" {utility.synthetic_accuracy:.1%} trained on generated,"
        f" {utility.real_accuracy:.1%} trained on real images (chance {1 / class_count:.0%})"
    )
    for few in utility.few_shot:
        yield (
            f"{few.n_per_class} real images a class:"
            f" {few.real_accuracy:.1%} ± {few.real_accuracy_sd:.1%} alone,"
            f" {few.augmented_accuracy:.1%} ± {few.augmented_accuracy_sd:.1%} with generated ones;"
            f" gain {few.gain:+.1%} ± {few.gain_sd:.1%} over {few.seeds} draws"
        )


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _beside(value: float | None, real: float | None, spec: str) -> str:
    return f"{format_optional(value, spec)} ({format_optional(real, spec.lstrip('+'))})"


def format_optional(value: float | None, spec: str) -> str:
    """`-` for a figure that was not computed."""
    return "-" if value is None else format(value, spec)
