"""A checkpoint's model card in Markdown: all that its manifest and its quality report say. Torch-free.

No number stands here that is not read from one of the two; what each of them means is in docs/evaluation.md.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

from model_store.manifest import Manifest
from model_store.report import ClassChecks, ClassFigures, CopyingFigures, ExtractorReport, QualityReport
from model_store.report_verdicts import Level, verdicts

_NOT_FOR = (
    "Nor, of any checkpoint here: in place of a patient's data, a slide or a finding, for its images show"
    " nobody; unmarked among real images, as each has an id that says what it is; to judge a classifier,"
    " which need not know what they lack; or as if another laboratory's slides looked like them."
)
_PRIVACY = (
    "None of this can tell whether a *person* could be recognised, and where the data name no patients nobody"
    " can split by them. The tests accuse and never acquit."
)


def model_card(manifest: Manifest, report: QualityReport | None, *, seen: str = "") -> str:
    """The whole card, ending in a newline. seen: what people saw in its images, which no figure tells."""
    sections = [
        f"# Model card: {manifest.reference}",
        *_identity(manifest),
        *_uses(manifest),
        *_data(manifest, report),
        *_training(manifest),
        *(_quality(report) if report else ["## Quality", "It was published without a quality report."]),
        *_failures(report, seen),
        *(_memorisation(report) if report else []),
        *_verifying(manifest),
        *_citing(manifest, report),
    ]
    return "\n\n".join(sections) + "\n"


def _identity(manifest: Manifest) -> Iterator[str]:
    yield _table(
        ("", ""),
        [
            ("architecture", f"`{manifest.architecture}`, {manifest.resolution} px"),
            ("classes, in label order", ", ".join(f"`{slug}`" for slug in manifest.classes)),
            *_experts(manifest),
            ("configuration", f"`{json.dumps(manifest.config)}`"),
            ("weights", f"{manifest.weights.size_bytes / 1e6:.1f} MB, sha256 `{manifest.weights.sha256}`"),
            ("digest", f"`{manifest.digest}`"),
            ("licence", manifest.license),
        ],
    )


def _experts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Which classes each network draws, where there are several."""
    for number, expert in enumerate(manifest.config.get("experts", ()), start=1):
        drawn = ", ".join(f"`{manifest.classes[index]}`" for index in expert["classes"])
        yield f"expert {number}", f"a `{expert['architecture']}` network, draws {drawn}"


def _uses(manifest: Manifest) -> Iterator[str]:
    yield "## What it is for"
    yield manifest.intended_use
    yield "## What it must not be used for"
    yield manifest.not_for
    yield _NOT_FOR


def _data(manifest: Manifest, report: QualityReport | None) -> Iterator[str]:
    dataset = manifest.dataset
    yield "## What it learned from"
    yield _table(
        ("", ""),
        [
            ("images", f"{dataset.name}; {dataset.license}"),
            ("cleaning", dataset.cleaning),
            ("held out", dataset.held_out),
            ("digest of the files used", f"`{dataset.digest}`"),
        ],
    )
    judged = report.primary.classes if report else {}
    rows = [
        (f"`{slug}`", f"{count:,}", *_held_out(judged.get(slug)))
        for slug, count in dataset.images_per_class.items()
    ]
    yield _table(("class", "learned from", "never seen in training", "judged against"), rows)


def _held_out(figures: ClassFigures | None) -> tuple[str, str]:
    if figures is None:
        return "-", "-"
    return (f"{figures.copying.n_held_out:,}" if figures.copying else "-"), f"{figures.n_real:,}"


def _training(manifest: Manifest) -> Iterator[str]:
    training = manifest.training
    yield "## How it was trained"
    yield _table(
        ("", ""),
        [
            ("recipe", f"`{training.recipe}`"),
            ("images seen", f"{training.images_seen:,}"),
            ("hours", f"{training.hours:g} on {training.device}"),
            ("seed, commit, torch", f"{training.seed}, `{training.commit}`, {training.torch_version}"),
            ("finished", f"{training.finished_at:%Y-%m-%d}"),
        ],
    )
    if training.notes:
        yield training.notes
    yield from (f"Published although: {sentence}" for sentence in manifest.overrides)


def _quality(report: QualityReport) -> Iterator[str]:
    yield "## Quality"
    yield (
        f"Judged on {report.created_at:%Y-%m-%d}, on images of seed {report.seed} at truncation"
        f" {report.truncation:g}. In brackets what real images score: one random half of the class against"
        f" the other, and other series of the class, that is, other slides. {_fid(report)} What each figure"
        " says and what it hides: [evaluation](evaluation.md)."
    )
    for extractor in report.extractors:
        yield f"### By {extractor.extractor}"
        yield _figures(extractor)
    if report.checks:
        yield "### By pixels and labels"
        yield _pixels(report)
    if report.utility:
        yield from _utility(report)


def _fid(report: QualityReport) -> str:
    if any(extractor.is_inception for extractor in report.extractors):
        return "The distance under Inception is a FID; no other one is."
    return f"No distance here is a FID: {report.fid_reason or 'Inception has not judged'}."


def _figures(extractor: ExtractorReport) -> str:
    headings = (
        "class",
        "real, generated",
        "Frechet distance",
        "nearest other class",
        "KID",
        "precision",
        "recall",
        "coverage",
    )
    return _table(headings, (_class_row(slug, each) for slug, each in extractor.classes.items()))


def _class_row(slug: str, figures: ClassFigures) -> tuple[str, ...]:
    halves, series = figures.floor_figures, figures.floor_blocked_figures
    others = {name: far for name, far in figures.distance_to.items() if name != slug}
    nearest = min(others, key=others.__getitem__, default=None)
    return (
        f"`{slug}`",
        f"{figures.n_real}, {figures.n_fake}",
        f"{figures.frechet_distance:.1f} {_beside('.1f', figures.floor, figures.floor_blocked)}",
        "-" if nearest is None else f"{others[nearest]:.1f} (`{nearest}`)",
        f"{figures.kid:.3f} {_beside('.3f', figures.kid_floor, series.kid if series else None)}",
        *(
            _share(getattr(figures, name), getattr(halves, name, None), getattr(series, name, None))
            for name in ("precision", "recall", "coverage")
        ),
    )


def _share(value: float | None, *floors: float | None) -> str:
    return "-" if value is None else f"{value:.2f} {_beside('.2f', *floors)}"


def _beside(form: str, *floors: float | None) -> str:
    """`(13.1, 31.6)`; a floor of zero within rounding is written without a sign."""
    said = ("-" if floor is None else format(floor, f"z{form}") for floor in floors)
    return f"({', '.join(said)})"


def _pixels(report: QualityReport) -> str:
    headings = (
        "class",
        "luma, of 255: generated - real",
        "its spread between images (real)",
        "scale bars (real)",
        "named as its class by a classifier (real)",
    )
    rows = [
        (
            f"`{slug}`",
            _number(checks.luma_delta, "+.1f"),
            f"{_number(checks.luma_sd, '.1f')} ({_number(checks.luma_sd_real, '.1f')})",
            f"{_number(checks.scale_bar_ratio, '.1%')} ({_number(checks.scale_bar_ratio_real, '.1%')})",
            f"{_number(checks.label_agreement_ratio, '.1%')}"
            f" ({_number(checks.label_agreement_ratio_real, '.1%')})",
        )
        for slug, checks in report.checks.items()
    ]
    return _table(headings, rows)


def _utility(report: QualityReport) -> Iterator[str]:
    utility = report.utility
    if utility is None:
        return
    yield "### By use"
    yield (
        f"A linear classifier on {utility.extractor}'s features that learned from {utility.n_synthetic:,}"
        f" generated images names {utility.synthetic_accuracy:.1%} of {utility.n_test:,} unseen real images"
        f" rightly; one that learned from {utility.n_real:,} real ones {utility.real_accuracy:.1%}."
    )
    rows = [
        (
            f"{few.n_per_class}",
            f"{few.real_accuracy:.1%} ± {few.real_accuracy_sd:.1%}",
            f"{few.augmented_accuracy:.1%} ± {few.augmented_accuracy_sd:.1%}",
            f"{few.gain:+.1%} ± {few.gain_sd:.1%}",
            f"{few.seeds}",
        )
        for few in utility.few_shot
    ]
    if rows:
        headings = ("real images a class", "alone", "with generated ones", "gain", "draws")
        yield _table(headings, rows)


def _failures(report: QualityReport | None, seen: str) -> Iterator[str]:
    if report:
        levels: tuple[tuple[Level, str], ...] = (
            ("fail", "## Known failures"),
            ("look", "## To be looked at"),
            ("pass", "## What holds"),
        )
        found = verdicts(report)
        for level, heading in levels:
            sentences = [f"- {verdict.text}" for verdict in found if verdict.level == level]
            if sentences:
                yield heading
                yield "\n".join(sentences)
    if seen:
        yield "## What eyes see, and no figure tells"
        yield seen.strip()
    if report and report.notes:
        yield f"Of the report: {report.notes}"


def _memorisation(report: QualityReport) -> Iterator[str]:
    yield "## Privacy and memorisation"
    if report.checks:
        headings = ("class", "images", "copies", "likest", "99th percentile", "unseen real: copies, 99th")
        yield (
            "Each image is compared with every training image as a thumbnail, over turns, reflections and"
            " shifts; what is too like one counts as a copy."
        )
        yield _table(headings, (_copies_row(slug, checks) for slug, checks in report.checks.items()))
    rows = [
        (f"`{slug}`", extractor.extractor, *_copying_row(figures.copying))
        for extractor in report.extractors
        for slug, figures in extractor.classes.items()
        if figures.copying
    ]
    if rows:
        yield "In features, which is weaker:"
        yield _table(("class", "judge", "authentic", "of real: trained on, held out", "C_T"), rows)
    yield _PRIVACY


def _copies_row(slug: str, checks: ClassChecks) -> tuple[str, ...]:
    return (
        f"`{slug}`",
        str(checks.n),
        _number(checks.memorized_ratio, ".1%"),
        _number(checks.similarity_max, ".2f"),
        _number(checks.similarity_p99, ".2f"),
        f"{_number(checks.memorized_ratio_real, '.1%')}, {_number(checks.similarity_real_p99, '.2f')}",
    )


def _copying_row(copying: CopyingFigures) -> tuple[str, str, str]:
    return (
        f"{copying.authenticity:.1%}",
        f"{copying.authenticity_floor:.1%}, {copying.authenticity_held_out:.1%}",
        _number(copying.c_t, ".1f") if copying.c_t is not None else (copying.c_t_reason or "-"),
    )


def _verifying(manifest: Manifest) -> Iterator[str]:
    yield "## How to verify it"
    yield (
        "Every file is checked against the sha256 in the manifest whenever it is read. The digest above is"
        " the sha256 of all that decides an image, and each image's id begins with it. By hand:"
    )
    yield "\n".join(
        (
            "```sh",
            f"masan models show {manifest.reference}                # the digest, as above",
            f"masan evaluate {manifest.reference} --out again.json  # judge it anew, by its reference set",
            f"masan report {manifest.reference} -o report.html      # its report, with images drawn for it",
            "masan verify out                                 # that a job's images are what a service made",
            "```",
        )
    )


def _citing(manifest: Manifest, report: QualityReport | None) -> Iterator[str]:
    yield "## How to cite it"
    yield (
        f'"MASAN, checkpoint {manifest.reference}, digest {manifest.digest[:16]},'
        f' {manifest.training.finished_at:%Y}", with the seeds and the number of images, so that anybody can'
        f" draw them again; and where the real images are from: {manifest.dataset.name}."
    )
    if report:
        yield (
            f"Figures are cited with their judge, counts and floors, and the day of the report,"
            f" {report.created_at:%Y-%m-%d}."
        )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
