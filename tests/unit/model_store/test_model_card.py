"""The model card: that what manifest and report say stands in it, and nothing else."""

import re
from datetime import UTC, datetime

from model_store.manifest import DatasetInfo, FileEntry, Manifest, TrainingHistory
from model_store.model_card import model_card
from model_store.report_verdicts import verdicts
from tests.full_report import CLASSES, full_report

MANIFEST = Manifest(
    name="smears",
    version="3",
    architecture="masan",
    config={"base_channels": 7},
    classes=CLASSES,
    resolution=256,
    weights=FileEntry(path="weights.safetensors", sha256="e" * 64, size_bytes=3_912_345),
    dataset=DatasetInfo(
        name="Slides | of two wards",
        digest="f" * 64,
        images_per_class={"benign": 1394, "pro_b": 600},
        cleaning="bars painted over",
        held_out="series 5",
        license="research use",
    ),
    training=TrainingHistory(
        recipe="cpu",
        images_seen=32_464,
        hours=1.68,
        device="cpu, 1 thread",
        seed=2077,
        commit="b86095fd0482",
        torch_version="2.14.1",
        finished_at=datetime(2026, 11, 23, tzinfo=UTC),
        notes="Grown from 128 px.",
    ),
    overrides=("pro_b is darker",),
    license="Apache-2.0",
    intended_use="To teach.",
    not_for="Diagnosis.",
)


def test_everything_of_the_manifest_is_told() -> None:
    card = model_card(MANIFEST, None)

    for told in (
        "smears@3",
        MANIFEST.digest,
        '`{"base_channels": 7}`',
        "3.9 MB",
        "1,394",
        "Slides \\| of two wards; research use",
        "bars painted over",
        "series 5",
        "32,464",
        "1.68 on cpu, 1 thread",
        "Grown from 128 px.",
        "Published although: pro_b is darker",
        "To teach.",
        "Diagnosis.",
        f'checkpoint smears@3, digest {MANIFEST.digest[:16]}, 2026"',
    ):
        assert told in card
    assert "published without a quality report" in card


def test_networks_and_the_classes_they_draw_are_told_where_there_are_several() -> None:
    parts = [{"architecture": "masan", "config": {}, "classes": [index]} for index in (1, 0)]
    experts = MANIFEST.model_copy(update={"architecture": "experts", "config": {"experts": parts}})

    assert "| expert 2 | a `masan` network, draws `benign` |" in model_card(experts, None)
    assert "expert" not in model_card(MANIFEST, None)


def test_figures_stand_beside_what_real_images_score() -> None:
    report = full_report()
    figures = report.primary.classes["pro_b"]
    assert figures.floor_blocked is not None

    card = model_card(MANIFEST, report)

    assert f"{figures.frechet_distance:.1f} ({figures.floor:.1f}, {figures.floor_blocked:.1f})" in card
    assert "### By efficientnet-lite0" in card and "### By efficientnet-lite2" in card
    assert "No distance here is a FID: no Inception weights." in card
    assert report.utility is not None
    assert f"{report.utility.synthetic_accuracy:.1%}" in card


def test_every_verdict_stands_under_its_level() -> None:
    report = full_report()
    card = model_card(MANIFEST, report)
    headings = {"fail": "Known failures", "look": "To be looked at", "pass": "What holds"}

    found = verdicts(report)

    assert found
    for verdict in found:
        section = re.search(rf"^## {headings[verdict.level]}\n\n(.*?)^## ", card, re.MULTILINE | re.DOTALL)
        assert section is not None
        assert f"- {verdict.text}" in section[1]


def test_what_is_not_known_is_a_dash() -> None:
    report = full_report()
    bare = report.primary.classes["pro_b"].model_copy(
        update={"coverage": None, "floor_blocked": None, "copying": None, "distance_to": {}}
    )
    primary = report.primary.model_copy(update={"classes": report.primary.classes | {"pro_b": bare}})

    card = model_card(MANIFEST, report.model_copy(update={"primary": primary}))

    assert f"{bare.frechet_distance:.1f} ({bare.floor:.1f}, -) | - |" in card
    assert f"| `pro_b` | 600 | - | {bare.n_real} |" in card


def test_what_people_saw_is_told_if_anybody_looked() -> None:
    heading = "## What eyes see, and no figure tells"

    assert f"{heading}\n\n- The edges are pale.\n" in model_card(
        MANIFEST, None, seen="\n- The edges are pale.\n"
    )
    assert heading not in model_card(MANIFEST, None)


def test_tables_are_tables() -> None:
    for block in model_card(MANIFEST, full_report()).split("\n\n"):
        if block.startswith("|"):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block
