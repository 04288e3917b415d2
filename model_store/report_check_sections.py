"""A report's page, across extractors: pixels, copies of training images, usefulness. Torch-free."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Final

from model_store.html_page import Html, named, table, text
from model_store.report import (
    ClassChecks,
    ColorFigures,
    CopyingFigures,
    ExtractorReport,
    QualityReport,
    Utility,
)
from model_store.report_charts import Bar, bar_chart, floor_marks

_Getter = Callable[[ClassChecks], str | None]


def _row(name: str, meaning: str, checks: Iterable[ClassChecks], get: _Getter) -> list[str] | None:
    """A row of the checks' table; None if no class has the figure."""
    cells = [get(check) for check in checks]
    if all(cell is None for cell in cells):
        return None
    return [named(name, meaning), *(Html("-") if cell is None else text(cell) for cell in cells)]


def _beside(value: float | None, spec: str, small: Mapping[str, float | None]) -> Html | None:
    """A figure with what stands beside it in small print."""
    if value is None:
        return None
    lines = "".join(
        f"<small>{name} {other:{spec.replace('+', '')}}</small>"
        for name, other in small.items()
        if other is not None
    )
    return Html(f"<b>{value:{spec}}</b>{lines}")


def _check_table(checks: Mapping[str, ClassChecks], rows: Iterable[list[str] | None]) -> str:
    return Html(f'<div class="figures">{table([row for row in rows if row], ("", *checks))}</div>')


def pixel_section(checks: Mapping[str, ClassChecks]) -> str:
    """Brightness, colour, scale bars and labels, which need no extractor's opinion of quality."""
    if not checks:
        return ""
    rows = [_row(name, meaning, checks.values(), get) for name, meaning, get in _PIXEL_ROWS]
    shifts = [Bar(slug, check.luma_delta, None, _allowed(check)) for slug, check in checks.items()]
    histograms = [
        Bar(slug, color.luma_wasserstein, None, _histogram_floors(color))
        for slug, check in checks.items()
        if (color := check.color)
    ]
    return (
        f"<h2>Brightness, colour, scale bars, labels</h2>{_check_table(checks, rows)}"
        f"{bar_chart('Mean luma, generated minus real', shifts, '+.1f')}"
        f"{bar_chart('Distance of the luma histograms, levels', histograms, '.1f')}"
    )


def _allowed(check: ClassChecks) -> dict[str, tuple[float, ...]]:
    sd = check.luma_sd_real
    return {"one standard deviation of real images": (-sd, sd)} if sd else {}


def _histogram_floors(color: ColorFigures) -> dict[str, tuple[float, ...]]:
    return floor_marks(color.luma_wasserstein_floor, color.luma_wasserstein_blocked)


def _of_color(get: Callable[[ColorFigures], Html | str]) -> _Getter:
    return lambda check: None if check.color is None else get(check.color)


_PIXEL_ROWS: Final[tuple[tuple[str, str, _Getter], ...]] = (
    (
        "Mean luma, generated minus real",
        "Of 0..255. Beyond one standard deviation of real images it fails.",
        lambda c: _beside(
            c.luma_delta,
            "+.1f",
            {
                "sd of real": c.luma_sd_real,
                "other slides": c.color.luma_delta_blocked if c.color else None,
            },
        ),
    ),
    (
        "Spread of luma between images",
        "Should be that of real images.",
        lambda c: _beside(c.luma_sd, ".1f", {"real": c.luma_sd_real}),
    ),
    (
        "Red, green, blue, generated minus real",
        "Of 0..255.",
        _of_color(lambda color: " / ".join(f"{delta:+.1f}" for delta in color.rgb_delta)),
    ),
    (
        "Distance of the luma histograms",
        "In levels: brightness and contrast together.",
        _of_color(
            lambda color: (
                _beside(
                    color.luma_wasserstein,
                    ".1f",
                    {"floor": color.luma_wasserstein_floor, "other slides": color.luma_wasserstein_blocked},
                )
                or ""
            )
        ),
    ),
    (
        "Luma of the background",
        "Below 245 it is grey.",
        _of_color(
            lambda color: _beside(color.background_luma, ".0f", {"real": color.background_luma_real}) or ""
        ),
    ),
    (
        "Dark pixels",
        "Share with luma below 110.",
        _of_color(lambda color: _beside(color.dark_ratio, ".2%", {"real": color.dark_ratio_real}) or ""),
    ),
    (
        "Burnt-in scale bars",
        "Share of images that still show one.",
        lambda c: _beside(c.scale_bar_ratio, ".1%", {"cleaned real": c.scale_bar_ratio_real}),
    ),
    (
        "Label agreement",
        "Share that a classifier of real images gives this class.",
        lambda c: _beside(c.label_agreement_ratio, ".1%", {"unseen real": c.label_agreement_ratio_real}),
    ),
)


def memorisation_section(report: QualityReport) -> str:
    """Copies of training images: aligned thumbnails first, what features say after."""
    checks = report.checks
    parts = [
        _check_table(
            checks, [_row(name, meaning, checks.values(), get) for name, meaning, get in _COPY_ROWS]
        ),
        _flagged(checks),
        *(_copying(extractor) for extractor in report.extractors),
    ]
    return f"<h2>Memorisation</h2>{''.join(parts)}" if any(parts) and checks else ""


_COPY_ROWS: Final[tuple[tuple[str, str, _Getter], ...]] = (
    (
        "Images searched",
        "No copy among n means fewer than 3/n of all, at 95 % confidence.",
        lambda c: f"{c.n:,}",
    ),
    (
        "Too like a training image",
        "Correlation of aligned thumbnails above 0.6, over flips, turns and shifts.",
        lambda c: _beside(c.memorized_ratio, ".1%", {"unseen real": c.memorized_ratio_real}),
    ),
    (
        "Highest correlation",
        "Of the likest pair. Different fields stay below 0.35 in 95 % of cases.",
        lambda c: _beside(c.similarity_max, ".2f", {}),
    ),
    (
        "Correlation, 99th percentile",
        "Of each image with its likest training image.",
        lambda c: _beside(c.similarity_p99, ".2f", {"unseen real": c.similarity_real_p99}),
    ),
)


def _flagged(checks: Mapping[str, ClassChecks]) -> str:
    rows = [
        (slug, str(image.index), f"{image.similarity:.2f}", image.source)
        for slug, check in checks.items()
        for image in check.flagged
    ]
    head = ("Class", "Image of the seed", "Correlation", "Training image")
    return f"<h3>Flagged images</h3>{table(rows, head)}" if rows else ""


def _copying(report: ExtractorReport) -> str:
    """C_T and authenticity: weaker than the thumbnails, as a recompressed copy escapes them."""
    rows = [
        (
            slug,
            _c_t(copying),
            _beside(copying.authenticity, ".1%", _authenticity_floors(copying)) or "",
            f"{copying.n_train:,} / {copying.n_held_out:,} / {copying.n_fake:,}",
        )
        for slug, figures in report.classes.items()
        if (copying := figures.copying) is not None
    ]
    if not rows:
        return ""
    head = (
        "",
        named("C_T", "Below -3: nearer to training than unseen images are."),
        named("Authentic", "Share that is no near twin of a training image."),
        "Training / unseen / generated",
    )
    lead = "Weaker than the thumbnails, because a recompressed copy escapes features; never enough alone."
    return (
        f"<h3>Copying as {escape(report.extractor)} sees it</h3><p>{lead}</p>"
        f'<div class="figures">{table(rows, head)}</div>'
    )


def _c_t(copying: CopyingFigures) -> Html:
    if copying.c_t is None:
        return Html(f"not interpretable<small>{escape(copying.c_t_reason or '')}</small>")
    return _beside(copying.c_t, ".1f", {"real": copying.c_t_floor}) or Html("")


def _authenticity_floors(copying: CopyingFigures) -> dict[str, float | None]:
    return {
        "real": copying.authenticity_floor,
        "its sd": copying.authenticity_floor_sd,
        "unseen real": copying.authenticity_held_out,
    }


def utility_section(utility: Utility | None) -> str:
    """What a classifier learns from the generated images."""
    if utility is None:
        return ""
    bars = [
        Bar(slug, recall, None, {"trained on real images": (utility.real_recall[slug],)})
        for slug, recall in utility.synthetic_recall.items()
    ]
    few = [
        (
            f"{shot.n_per_class} real per class",
            f"{shot.real_accuracy:.1%} ± {shot.real_accuracy_sd:.1%}",
            f"{shot.augmented_accuracy:.1%} ± {shot.augmented_accuracy_sd:.1%}",
            Html(f"<b>{100 * shot.gain:+.1f}</b> ± {100 * shot.gain_sd:.1f} points, {shot.seeds} draws"),
        )
        for shot in utility.few_shot
    ]
    head = ("", "Real alone", "With generated", "Gain")
    return (
        f"<h2>Usefulness</h2><p>A linear classifier on {escape(utility.extractor)}, tested on"
        f" {utility.n_test:,} real images that no generator has seen. Trained on {utility.n_synthetic:,}"
        f" generated images it reaches <b>{utility.synthetic_accuracy:.1%}</b>, trained on"
        f" {utility.n_real:,} real ones {utility.real_accuracy:.1%}; guessing gives"
        f" {1 / len(utility.real_recall):.0%}. Classes are mostly recognised by their staining series, so"
        " this tells little of clinical use.</p>"
        f"{bar_chart('Recall, trained on generated images', bars, '.2f')}"
        f"{'<h3>A few real images, with and without generated ones</h3>' + table(few, head) if few else ''}"
    )
