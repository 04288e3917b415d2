"""Prometheus families of quality reports: every figure, and beside it what real images score."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from model_store.report import ClassChecks, ClassFigures, QualityReport

_FIGURE_LABELS = ["class", "model_version", "extractor"]
_CHECK_LABELS = ["class", "model_version"]


@dataclass(frozen=True, slots=True)
class _Figure:
    """A family with one value for each class and extractor; `value` gives None for what was not computed."""

    name: str
    text: str
    value: Callable[[ClassFigures], float | None]


@dataclass(frozen=True, slots=True)
class _Check:
    """A family with one value for each class."""

    name: str
    text: str
    value: Callable[[ClassChecks], float | None]


_FIGURES = (
    _Figure(
        "masan_class_frechet_distance", "Frechet distance to the real class", lambda f: f.frechet_distance
    ),
    _Figure("masan_class_frechet_distance_floor", "Frechet distance of two real halves", lambda f: f.floor),
    _Figure("masan_class_kid", "Kernel distance to the real class", lambda f: f.kid),
    _Figure("masan_class_kid_floor", "Kernel distance of two real halves", lambda f: f.kid_floor),
    _Figure("masan_class_recall_ratio", "Share of real images that are reached", lambda f: f.recall),
    _Figure(
        "masan_class_recall_ratio_floor",
        "The same between two real halves",
        lambda f: f.floor_figures.recall if f.floor_figures else None,
    ),
    _Figure(
        "masan_class_coverage_ratio", "Share of real images with a generated one near", lambda f: f.coverage
    ),
    _Figure(
        "masan_class_coverage_ratio_floor",
        "The same between two real halves",
        lambda f: f.floor_figures.coverage if f.floor_figures else None,
    ),
)
_CHECKS = (
    _Check(
        "masan_class_label_agreement_ratio",
        "Share that a classifier of real images gives the class",
        lambda c: c.label_agreement_ratio,
    ),
    _Check(
        "masan_class_label_agreement_ratio_floor",
        "The same of unseen real images",
        lambda c: c.label_agreement_ratio_real,
    ),
    _Check("masan_class_memorized_ratio", "Share too like a training image", lambda c: c.memorized_ratio),
    _Check(
        "masan_class_memorized_ratio_floor",
        "The same of unseen real images",
        lambda c: c.memorized_ratio_real,
    ),
)


def quality_families(reports: Iterable[tuple[str, QualityReport]]) -> Iterator[Metric]:
    """reports: `name@version` and its newest report, each once."""
    figures = {
        figure: GaugeMetricFamily(figure.name, figure.text, labels=_FIGURE_LABELS) for figure in _FIGURES
    }
    checks = {check: GaugeMetricFamily(check.name, check.text, labels=_CHECK_LABELS) for check in _CHECKS}
    fid = GaugeMetricFamily(
        "masan_class_fid", "Frechet distance in FID's own Inception network", labels=_CHECK_LABELS
    )
    written = GaugeMetricFamily(
        "masan_quality_report_timestamp_seconds", "When the report was made", labels=["model_version"]
    )
    for reference, report in reports:
        written.add_metric([reference], report.created_at.timestamp())
        for extractor in report.extractors:
            for slug, of_class in extractor.classes.items():
                for figure, family in figures.items():
                    _add(family, [slug, reference, extractor.extractor], figure.value(of_class))
                if extractor.is_inception:
                    _add(fid, [slug, reference], of_class.frechet_distance)
        for slug, of_checks in report.checks.items():
            for check, family in checks.items():
                _add(family, [slug, reference], check.value(of_checks))
    yield from (*figures.values(), fid, *checks.values(), written)


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)
