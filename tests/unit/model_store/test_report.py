"""A quality report is read whole, of the right checkpoint, or refused."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from model_store.builtin import builtin_store
from model_store.errors import WeightsCorruptedError
from model_store.manifest import FileEntry
from model_store.report import (
    REPORT_FILE,
    ClassFigures,
    ExtractorReport,
    MeanFigures,
    QualityReport,
    ReportInvalidError,
    ReportsIncomparableError,
    attach_report,
    comparable,
    ensure_comparable,
    read_report,
)
from model_store.store import Checkpoint, ModelStore
from tests.checkpoints import describe, tiny_config

WEIGHTS = b"not looked at here"


def figures(**changes: object) -> ClassFigures:
    row = {
        "n_real": 100,
        "n_fake": 50,
        "frechet_distance": 60.0,
        "floor": 8.0,
        "floor_n": 50,
        "kid": -0.001,
        "kid_sd": 0.01,
    }
    return ClassFigures.model_validate(row | changes)


def judged(
    extractor: str = "efficientnet-lite0", sha256: str = "a" * 64, slug: str = "pro_b"
) -> ExtractorReport:
    return ExtractorReport(
        extractor=extractor,
        extractor_sha256=sha256,
        preprocessing="none",
        reference_digest="b" * 64,
        classes={slug: figures(), "benign": figures()},
        mean=MeanFigures(frechet_distance=60.0, floor=8.0, kid=0.0),
    )


def report(digest: str = "d" * 64, *judges: ExtractorReport) -> QualityReport:
    return QualityReport(
        digest=digest, created_at=datetime(2026, 1, 1, tzinfo=UTC), primary=judged(), judges=judges
    )


def publish(store: ModelStore, content: bytes | None) -> Checkpoint:
    """A checkpoint with `content` as its report."""
    manifest = describe("tiny", "1", WEIGHTS, tiny_config())
    files = {"weights.safetensors": WEIGHTS}
    if content is not None:
        sha256 = hashlib.sha256(content).hexdigest()
        entry = FileEntry(path=REPORT_FILE, sha256=sha256, size_bytes=len(content))
        manifest = manifest.model_copy(update={"reports": (entry,)})
        files[REPORT_FILE] = content
    return store.publish(manifest, files)


def test_published_report_is_read_back(model_store: ModelStore) -> None:
    digest = describe("tiny", "1", WEIGHTS, tiny_config()).digest
    written = report(digest, judged("efficientnet-lite2"))

    checkpoint = publish(model_store, written.model_dump_json().encode())

    assert read_report(model_store, checkpoint) == written


def test_checkpoint_may_have_no_report(model_store: ModelStore) -> None:
    assert read_report(model_store, publish(model_store, None)) is None


@pytest.mark.parametrize("content", [b"", b"{}", report().model_dump_json().encode()])
def test_broken_report_or_that_of_another_checkpoint_is_refused(
    model_store: ModelStore, content: bytes
) -> None:
    checkpoint = publish(model_store, content)

    with pytest.raises(ReportInvalidError, match="tiny@1"):
        read_report(model_store, checkpoint)


def test_altered_file_is_refused(model_store: ModelStore) -> None:
    checkpoint = publish(model_store, b"{}")
    with open(f"{model_store.url}/{checkpoint.folder}/{REPORT_FILE}", "ab") as file:  # noqa: PTH123
        file.write(b" ")

    with pytest.raises(WeightsCorruptedError):
        read_report(model_store, checkpoint)


def test_the_newest_attached_report_is_the_checkpoint_s(model_store: ModelStore) -> None:
    digest = describe("tiny", "1", WEIGHTS, tiny_config()).digest
    checkpoint = publish(model_store, report(digest).model_dump_json().encode())
    later = [report(digest).model_copy(update={"notes": str(number)}) for number in range(2)]

    for made in later:
        attach_report(model_store, checkpoint, made)

    assert read_report(model_store, checkpoint) == later[-1]


def test_a_damaged_attached_report_gives_way_to_the_one_before(model_store: ModelStore) -> None:
    digest = describe("tiny", "1", WEIGHTS, tiny_config()).digest
    published = report(digest)
    checkpoint = publish(model_store, published.model_dump_json().encode())
    attach_report(model_store, checkpoint, published.model_copy(update={"notes": "later"}))
    (entry,) = model_store.attached_reports(checkpoint)
    Path(model_store.url, checkpoint.folder, "reports", entry.path).unlink()

    assert read_report(model_store, checkpoint) == published


def test_a_report_of_another_checkpoint_is_not_attached(model_store: ModelStore) -> None:
    checkpoint = publish(model_store, None)

    with pytest.raises(ReportInvalidError, match="another checkpoint"):
        attach_report(model_store, checkpoint, report())
    assert read_report(model_store, checkpoint) is None


@pytest.mark.parametrize(
    ("extractor", "sha256", "expected"),
    [
        ("inception-v3", "6726825d" + "0" * 56, True),
        ("inception-v3", "0" * 64, False),
        ("efficientnet-lite0", "6726825d" + "0" * 56, False),
    ],
)
def test_only_the_published_inception_gives_fid(extractor: str, sha256: str, expected: bool) -> None:
    assert judged(extractor, sha256).is_inception is expected


def test_images_are_counted_over_the_classes() -> None:
    assert (judged().n_real, judged().n_fake) == (200, 100)


@pytest.mark.parametrize("judge", [judged(), judged("efficientnet-lite2", slug="other")])
def test_judges_differ_in_name_and_agree_on_classes(judge: ExtractorReport) -> None:
    with pytest.raises(ValidationError):
        report("d" * 64, judge)


@pytest.mark.parametrize("changes", [{"kid": float("nan")}, {"frechet_distance": -1.0}, {"recall": 1.5}])
def test_impossible_figure_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        figures(**changes)


def matrix(**rows: dict[str, float]) -> ExtractorReport:
    """Classes with those rows of distances."""
    judge = judged()
    return judge.model_copy(
        update={"classes": {slug: figures(distance_to=row) for slug, row in rows.items()}}
    )


def test_shipped_report_is_read_and_compares_with_itself() -> None:
    store = builtin_store()

    shipped = read_report(store, store.resolve("b-all"))

    assert shipped is not None
    assert shipped.primary.diagonal_wins
    assert comparable(shipped, shipped)


def test_report_of_the_first_schema_is_read() -> None:
    first = {**report().model_dump(mode="json", exclude_defaults=True), "schema_version": 1}

    read = QualityReport.model_validate(first)

    assert read.schema_version == 1
    assert read.primary.classes["benign"].floor == 8.0
    assert read.primary.classes["benign"].floor_figures is None


def test_diagonal_wins_where_every_class_is_nearest_to_its_own() -> None:
    right = matrix(a={"a": 10.0, "b": 25.0}, b={"a": 30.0, "b": 20.0})
    swapped = matrix(a={"a": 10.0, "b": 5.0}, b={"a": 30.0, "b": 20.0})

    assert (right.diagonal_wins, right.nearest_class("a"), right.diagonal_factor("b")) == (True, "a", 1.5)
    assert (swapped.diagonal_wins, swapped.nearest_class("a"), swapped.diagonal_factor("a")) == (
        False,
        "b",
        0.5,
    )
    assert matrix(a={"a": 0.0, "b": 1.0}).diagonal_wins
    assert matrix(a={}).diagonal_wins is None


def test_reports_of_equal_conditions_compare_on_the_extractors_both_hold() -> None:
    more = report("d" * 64, judged("efficientnet-lite2"), judged("inception-v3"))
    fewer = report("e" * 64, judged("efficientnet-lite2"))

    assert ensure_comparable(more, fewer) == ("efficientnet-lite0", "efficientnet-lite2")
    assert ensure_comparable(fewer, more) == ("efficientnet-lite0", "efficientnet-lite2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extractor": "efficientnet-lite2"}, "extractor is efficientnet-lite0 in one, efficientnet-lite2"),
        ({"extractor_sha256": "f" * 64}, "extractor_sha256 of efficientnet-lite0 is aaa"),
        ({"preprocessing": "other"}, "preprocessing of efficientnet-lite0 is none in one, other in"),
        ({"reference_digest": "f" * 64}, "reference_digest of efficientnet-lite0 is bbb"),
        (
            {"classes": {"benign": figures(n_real=99), "pro_b": figures()}},
            "n_real of efficientnet-lite0 is benign 100, pro_b 100 in one, benign 99",
        ),
        ({"classes": {"benign": figures(), "pro_b": figures(n_fake=7)}}, "n_fake of efficientnet-lite0"),
    ],
)
def test_other_conditions_are_refused_by_name(change: dict[str, object], message: str) -> None:
    first = report()
    second = first.model_copy(update={"primary": first.primary.model_copy(update=change)})

    with pytest.raises(ReportsIncomparableError, match=message):
        ensure_comparable(first, second)
    assert not comparable(second, first)


def test_a_differing_judge_or_treatment_of_the_images_is_refused() -> None:
    first = report("d" * 64, judged("efficientnet-lite2"))
    other_judge = report("d" * 64, judged("efficientnet-lite2", "c" * 64))
    deduplicated = first.model_copy(update={"deduplicated": True})

    with pytest.raises(ReportsIncomparableError, match="extractor_sha256 of efficientnet-lite2"):
        ensure_comparable(first, other_judge)
    with pytest.raises(ReportsIncomparableError, match="deduplicated is None in one, True in the other"):
        ensure_comparable(first, deduplicated)
