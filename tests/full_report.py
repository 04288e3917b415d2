"""A quality report with every section filled: figures of no checkpoint, in the ranges of real ones."""

from datetime import UTC, datetime

from model_store.report import (
    ClassChecks,
    ClassFigures,
    CmmdFigures,
    CmmdReport,
    ColorFigures,
    CopyingFigures,
    ExtractorReport,
    FewShot,
    FlaggedImage,
    FloorFigures,
    MeanFigures,
    PooledFigures,
    QualityReport,
    Utility,
)

CLASSES = ("benign", "pro_b")


def full_report(digest: str = "d" * 64, classes: tuple[str, ...] = CLASSES) -> QualityReport:
    """Two extractors; every class nearest to itself, none darker, nothing copied."""
    return QualityReport(
        digest=digest,
        created_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        truncation=0.75,
        seed=11,
        primary=judged("efficientnet-lite0", "a", classes),
        judges=(judged("efficientnet-lite2", "c", classes),),
        checks={slug: _checks() for slug in classes},
        utility=_utility(classes),
        deduplicated=True,
        fid_reason="no Inception weights",
        cmmd=_cmmd(classes),
        cmmd_reason=None,
        notes="Rank by KID & nothing else.",
    )


def judged(extractor: str, weights: str, classes: tuple[str, ...] = CLASSES) -> ExtractorReport:
    """All classes under one extractor."""
    return ExtractorReport(
        extractor=extractor,
        extractor_sha256=weights * 64,
        preprocessing="uint8 RGB, bicubic",
        reference_digest="b" * 64,
        classes={slug: figures(slug, classes) for slug in classes},
        mean=MeanFigures(frechet_distance=21.5, floor=8.0, kid=0.0123, mmd=0.456, floor_figures=_floor(8.0)),
        pooled=PooledFigures(
            n_real=1234,
            n_fake=1000,
            frechet_distance=17.25,
            floor=4.5,
            floor_n=617,
            kid=0.0111,
            kid_sd=0.0022,
            kid_floor=0.0003,
        ),
    )


def figures(slug: str, classes: tuple[str, ...] = CLASSES, distance: float = 12.5) -> ClassFigures:
    """One class, 1.5 floors from its own real images and farther from the others."""
    others = [other for other in classes if other != slug]
    return ClassFigures(
        n_real=617,
        n_fake=500,
        frechet_distance=distance,
        floor=8.0,
        floor_n=308,
        floor_blocked=31.25,
        kid=0.0234,
        kid_sd=0.0056,
        kid_floor=0.0007,
        mmd=0.789,
        precision=0.812,
        recall=0.723,
        density=0.934,
        coverage=0.845,
        distance_to={slug: distance} | dict.fromkeys(others, 55.5),
        real_distance_to=dict.fromkeys(others, 66.6),
        kid_to={slug: 0.0234} | dict.fromkeys(others, 0.21),
        real_kid_to=dict.fromkeys(others, 0.25),
        floor_figures=_floor(8.0),
        floor_blocked_figures=_floor(31.25),
        copying=CopyingFigures(
            n_train=480,
            n_held_out=137,
            n_fake=500,
            frechet_held_out=14.0,
            frechet_held_out_floor=9.0,
            c_t=-0.4,
            c_t_floor=0.3,
            authenticity=0.671,
            authenticity_floor=0.652,
            authenticity_floor_sd=0.021,
            authenticity_held_out=0.643,
        ),
    )


def _floor(distance: float) -> FloorFigures:
    return FloorFigures(
        n=308,
        frechet_distance=distance,
        frechet_distance_sd=0.35,
        kid=0.0007,
        kid_sd=0.0004,
        mmd=0.012,
        precision=0.905,
        recall=0.915,
        density=1.015,
        coverage=0.965,
    )


def _checks() -> ClassChecks:
    return ClassChecks(
        n=500,
        luma_delta=-1.2,
        luma_sd=6.3,
        luma_sd_real=6.8,
        scale_bar_ratio=0.002,
        memorized_ratio=0.0,
        similarity_max=0.47,
        similarity_p99=0.36,
        similarity_real_p99=0.38,
        label_agreement_ratio=0.954,
        scale_bar_ratio_real=0.001,
        memorized_ratio_real=0.0125,
        label_agreement_ratio_real=0.976,
        color=ColorFigures(
            rgb_delta=(1.5, -2.5, 3.5),
            background_luma=249.0,
            background_luma_real=252.0,
            dark_ratio=0.0123,
            dark_ratio_real=0.0145,
            luma_wasserstein=4.4,
            luma_wasserstein_floor=0.6,
            luma_wasserstein_blocked=2.2,
            luma_delta_blocked=3.3,
        ),
    )


def flagged(checks: ClassChecks) -> ClassChecks:
    """The same with one copy of a training image found."""
    copy = FlaggedImage(index=42, similarity=0.83, source="Pro/a<b>.jpg")
    return checks.model_copy(update={"memorized_ratio": 0.002, "similarity_max": 0.83, "flagged": (copy,)})


def _cmmd(classes: tuple[str, ...]) -> CmmdReport:
    row = CmmdFigures(n_real=617, n_fake=500, cmmd=0.321, floor=0.021, floor_blocked=0.121)
    return CmmdReport(
        extractor="clip-vit-l-14-336",
        extractor_sha256="e" * 64,
        preprocessing="bicubic 336",
        reference_digest="b" * 64,
        classes=dict.fromkeys(classes, row),
        mean=0.333,
    )


def _utility(classes: tuple[str, ...]) -> Utility:
    shot = FewShot(
        n_per_class=10,
        seeds=5,
        real_accuracy=0.803,
        real_accuracy_sd=0.023,
        augmented_accuracy=0.847,
        augmented_accuracy_sd=0.019,
        gain=0.044,
        gain_sd=0.011,
    )
    return Utility(
        extractor="efficientnet-lite2",
        n_test=274,
        n_synthetic=1000,
        n_real=960,
        synthetic_accuracy=0.931,
        real_accuracy=0.966,
        synthetic_recall=dict.fromkeys(classes, 0.931),
        real_recall=dict.fromkeys(classes, 0.966),
        few_shot=(shot,),
    )
