"""A quality report in plain words: what passes, what to look at, what fails. Torch-free."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from model_store.promotion import FREE_LUMA_SD, MAX_LUMA_SD, MAX_SCALE_BAR_RATIO
from model_store.report import ClassChecks, ClassFigures, ExtractorReport, QualityReport

Level = Literal["pass", "look", "fail"]

FAR_FROM_REAL: Final = 4.0
"""Floors away. Source: real B-ALL images saved as JPEG of quality 75 lie 4 to 8 floors from their class."""
NEAR_REAL: Final = 2.0
"""Floors away, where no other slides of the class say what they score."""
LITTLE_COVERED: Final = 0.25
"""Source: real images of another class cover at most 0.23 of a B-ALL class."""
WELL_COVERED: Final = 0.75
"""Of what real images themselves cover."""
IMAGES_FOR_A_PASS: Final = 500
"""Per class: with no copy among so many, fewer than 0.6 % are copies at 95 % confidence (rule of three)."""
LOSS_ALLOWED: Final = 0.05
"""Of accuracy, by training on generated images. Source: series-blocked folds of real ones differ by 0.03."""
LEAST_LUMA_SPREAD: Final = 0.5
"""Of the real images' standard deviation; below, a class shows fewer stains than its slides have."""
COPYING_C_T: Final = -3.0
"""Source: 40 draws of unseen real images never scored below -1.74."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence of judgement."""

    level: Level
    text: str


def verdicts(report: QualityReport) -> list[Verdict]:
    """What the figures say, the most telling first; nothing where figures are absent."""
    found: list[Verdict | None] = []
    for extractor in report.extractors:
        found += [_nearest(extractor), _distance(extractor), _coverage(extractor)]
    checks = report.checks
    found += [_scale_bars(checks), _memorised(checks), *_copying(report)]
    found += [_luma(checks), _luma_spread(checks), _utility(report)]
    return [verdict for verdict in found if verdict is not None]


def _nearest(report: ExtractorReport) -> Verdict | None:
    """Whether the diagonal of the class matrix wins."""
    factors = {slug: report.diagonal_factor(slug) for slug in report.classes}
    known = {slug: factor for slug, factor in factors.items() if factor is not None}
    if not known:
        return None
    strays = [slug for slug, factor in known.items() if factor <= 1]
    closest = min(known, key=known.__getitem__)
    if not strays:
        return Verdict(
            "pass",
            f"{report.extractor}: each of the {len(known)} classes lies nearest to its own real images. The"
            f" closest call is {closest}: the next class lies {known[closest]:.2f} times as far as its own.",
        )
    named = "; ".join(_stray(report, slug) for slug in strays)
    return Verdict(
        "fail",
        f"{report.extractor}: {len(strays)} of {len(known)} classes lie nearer to another class: {named}.",
    )


def _stray(report: ExtractorReport, slug: str) -> str:
    row = report.classes[slug].distance_to
    other = min((name for name in row if name != slug), key=row.__getitem__)
    return f"generated {slug} is {row[other]:.1f} from real {other} and {row[slug]:.1f} from real {slug}"


def _distance(report: ExtractorReport) -> Verdict | None:
    """How many floors away the generated images lie."""
    factors = {
        slug: figures.frechet_distance / figures.floor
        for slug, figures in report.classes.items()
        if figures.floor > 0
    }
    if not factors:
        return None
    best, worst = min(factors, key=factors.__getitem__), max(factors, key=factors.__getitem__)
    beyond = [slug for slug, figures in report.classes.items() if figures.frechet_distance > _reach(figures)]
    level: Level = "fail" if factors[worst] > FAR_FROM_REAL else "look" if beyond else "pass"
    end = (
        f"farther than other slides of the same class lie: {', '.join(beyond)}"
        if beyond
        else "no farther than other slides of the same class lie"
    )
    return Verdict(
        level,
        f"{report.extractor}: the distance to real images is {factors[best]:.1f} ({best}) to"
        f" {factors[worst]:.1f} ({worst}) times the floor, {end}.",
    )


def _reach(figures: ClassFigures) -> float:
    return max(figures.floor_blocked or 0.0, NEAR_REAL * figures.floor)


def _coverage(report: ExtractorReport) -> Verdict | None:
    """How much of the real images' variety is there."""
    covered = {slug: f.coverage for slug, f in report.classes.items() if f.coverage is not None}
    if not covered:
        return None
    least, most = min(covered, key=covered.__getitem__), max(covered, key=covered.__getitem__)
    floors = [f.floor_figures.coverage for f in report.classes.values() if f.floor_figures]
    ceiling = min((floor for floor in floors if floor is not None), default=None)
    level: Level = "pass"
    if covered[least] < LITTLE_COVERED:
        level = "fail"
    elif covered[least] < WELL_COVERED * (ceiling or 1.0):
        level = "look"
    beside = "" if ceiling is None else f"; real images cover {ceiling:.1%} of each other at least"
    return Verdict(
        level,
        f"{report.extractor}: generated images cover {covered[least]:.1%} ({least}) to"
        f" {covered[most]:.1%} ({most}) of the real images' variety{beside}.",
    )


def _scale_bars(checks: Mapping[str, ClassChecks]) -> Verdict | None:
    rates = {slug: c.scale_bar_ratio for slug, c in checks.items() if c.scale_bar_ratio is not None}
    if not rates:
        return None
    above = {slug: rate for slug, rate in rates.items() if rate > MAX_SCALE_BAR_RATIO}
    if above:
        return Verdict(
            "fail", f"Burnt-in scale bars, {MAX_SCALE_BAR_RATIO:.0%} is allowed: {_percentages(above)}."
        )
    worst = max(rates, key=rates.__getitem__)
    return Verdict("pass", f"Burnt-in scale bars: {rates[worst]:.1%} at most ({worst}).")


def _memorised(checks: Mapping[str, ClassChecks]) -> Verdict | None:
    """Aligned thumbnails: the primary test of copying."""
    rates = {slug: c.memorized_ratio for slug, c in checks.items() if c.memorized_ratio is not None}
    if not rates:
        return None
    copied = {slug: rate for slug, rate in rates.items() if rate > 0}
    if copied:
        return Verdict("fail", f"Too like a training image; look at each of them: {_percentages(copied)}.")
    fewest = min(checks[slug].n for slug in rates)
    highest = max((checks[slug].similarity_max or 0.0 for slug in rates), default=0.0)
    text = (
        f"No copy of a training image among {fewest} images of each class, the likest correlates"
        f" {highest:.2f}: fewer than {3 / fewest:.1%} are copies, at 95 % confidence."
    )
    if fewest < IMAGES_FOR_A_PASS:
        return Verdict("look", f"{text} A pass needs {IMAGES_FOR_A_PASS} images of each class.")
    return Verdict("pass", text)


def _copying(report: QualityReport) -> Iterator[Verdict]:
    """Copying seen in features, weaker than the thumbnails: says something only where it fails."""
    for extractor in report.extractors:
        for slug, figures in extractor.classes.items():
            copying = figures.copying
            if copying is None:
                continue
            if copying.c_t is not None and copying.c_t < COPYING_C_T:
                yield Verdict(
                    "fail",
                    f"{extractor.extractor}: generated {slug} lies nearer to training images than unseen real"
                    f" images do, C_T {copying.c_t:.1f} (fails below {COPYING_C_T:.0f}).",
                )
            if copying.authenticity < copying.authenticity_floor - 3 * copying.authenticity_floor_sd:
                yield Verdict(
                    "fail",
                    f"{extractor.extractor}: only {copying.authenticity:.0%} of generated {slug} is"
                    f" authentic; of real images {copying.authenticity_floor:.0%} is.",
                )


def _luma(checks: Mapping[str, ClassChecks]) -> Verdict | None:
    """Brightness, in standard deviations of the real images."""
    shifts = {
        slug: c.luma_delta / c.luma_sd_real
        for slug, c in checks.items()
        if c.luma_delta is not None and c.luma_sd_real
    }
    if not shifts:
        return None
    worst = max(shifts, key=lambda slug: abs(shifts[slug]))
    size, word = abs(shifts[worst]), "brighter" if shifts[worst] > 0 else "darker"
    level: Level = "fail" if size > MAX_LUMA_SD else "look" if size > FREE_LUMA_SD else "pass"
    return Verdict(
        level,
        f"Brightness: the widest shift is {worst}, {abs(checks[worst].luma_delta or 0.0):.1f} of 255 levels"
        f" {word} than real: {size:.2f} standard deviations of real images, {MAX_LUMA_SD:g} is allowed.",
    )


def _luma_spread(checks: Mapping[str, ClassChecks]) -> Verdict | None:
    """Whether brightness varies from image to image as it does between real ones."""
    spreads = {
        slug: c.luma_sd / c.luma_sd_real
        for slug, c in checks.items()
        if c.luma_sd is not None and c.luma_sd_real
    }
    narrow = {slug: spread for slug, spread in spreads.items() if spread < LEAST_LUMA_SPREAD}
    if not narrow:
        return None
    return Verdict(
        "look", f"Brightness varies too little between images, in shares of real: {_percentages(narrow)}."
    )


def _utility(report: QualityReport) -> Verdict | None:
    utility = report.utility
    if utility is None:
        return None
    chance = 1 / len(utility.real_recall)
    synthetic, real = utility.synthetic_accuracy, utility.real_accuracy
    level: Level = "fail"
    if synthetic > (real + chance) / 2:
        level = "pass" if synthetic > real - LOSS_ALLOWED else "look"
    return Verdict(
        level,
        f"A linear classifier that has seen generated images only names {synthetic:.1%} of unseen real images"
        f" rightly; trained on real ones {real:.1%}, guessing {chance:.0%}.",
    )


def _percentages(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{slug} {rate:.1%}" for slug, rate in rates.items())
