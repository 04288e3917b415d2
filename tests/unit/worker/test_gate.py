"""What the gate lets through, what it refuses, and why; each image is judged by itself."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from model_store.quality.luma import mean_luma
from model_store.quality.reference_set import ReferenceSet
from model_store.quality.scale_bar import ScaleBarStyle
from tests.references import make_reference
from tests.smears import draw_scale_bar, draw_smear
from worker.contract.messages import GateLevel, RejectionReason
from worker.gate import MIN_REAL_IMAGES, NO_REFERENCE, Gate, GateReference

ImageArray = npt.NDArray[np.uint8]

DEFAULT, STRICT = GateLevel.DEFAULT, GateLevel.STRICT


def smear(seed: int) -> ImageArray:
    return draw_smear(np.random.default_rng(seed), "Early")


TRAINED_ON = [smear(seed) for seed in range(5)]
NEW = smear(100)
LUMA = mean_luma(NEW)


def reference(low: float = -10.0, high: float = 10.0, count: int = 200) -> ReferenceSet:
    """Real images of class `early` with luma from low to high around that of NEW."""
    luma = np.linspace(LUMA + low, LUMA + high, count)
    return make_reference({"early": luma.tolist()}, TRAINED_ON)


def judged(
    image: ImageArray, level: GateLevel = DEFAULT, known: GateReference | None = None, *, finite: bool = True
) -> tuple[RejectionReason | None, set[str]]:
    """Reason, and what was measured."""
    gate = Gate(level, GateReference.of(reference()) if known is None else known)
    reason, measured = gate.judge(image, "early", is_finite=finite)
    return reason, set(measured)


@pytest.mark.parametrize("level", [DEFAULT, STRICT])
def test_a_good_image_passes_and_all_is_measured(level: GateLevel) -> None:
    reason, measured = Gate(level, GateReference.of(reference())).judge(NEW, "early", is_finite=True)

    assert reason is None
    assert measured["luma"] == round(LUMA, 2)
    assert measured["scale_bar"] == 0
    assert measured["luma_sd"] > 8
    assert -1 < measured["nearest"] < 0.5


def test_what_is_not_finite_is_not_even_looked_at() -> None:
    assert judged(NEW, finite=False) == (RejectionReason.NON_FINITE, set())


@pytest.mark.parametrize(
    "image",
    [
        np.full((224, 224, 3), 230, dtype=np.uint8),
        (230 + np.random.default_rng(0).normal(0, 2, (224, 224, 3))).astype(np.uint8),  # faint noise
        np.where(np.arange(224)[:, None, None] % 2 == 0, np.uint8(255), np.uint8(150))
        * np.ones((224, 224, 3), np.uint8),  # two levels
    ],
    ids=["flat", "faint", "stripes"],
)
def test_a_near_uniform_image_is_refused(image: ImageArray) -> None:
    assert judged(image)[0] is RejectionReason.NEAR_UNIFORM


@pytest.mark.parametrize("style", [style for style in ScaleBarStyle if style is not ScaleBarStyle.NONE])
def test_a_scale_bar_is_refused(style: ScaleBarStyle) -> None:
    assert judged(draw_scale_bar(NEW, style)) == (RejectionReason.SCALE_BAR, {"luma_sd", "scale_bar"})


@pytest.mark.parametrize(
    ("shift", "by_default", "strictly"),
    [
        (0, True, True),
        (9, True, True),
        (-9, True, True),
        (14, True, False),
        (-16, True, False),
        (23, False, False),
        (-30, False, False),
    ],
)
def test_luma_is_judged_against_that_of_the_class(shift: int, by_default: bool, strictly: bool) -> None:
    # Real images span 20 levels; by default half of that is added on either side.
    known = GateReference.of(reference(-10 - shift, 10 - shift))

    reasons = [judged(NEW, level, known)[0] for level in (DEFAULT, STRICT)]

    assert reasons == [None if passes else RejectionReason.LUMA for passes in (by_default, strictly)]


def test_another_class_is_judged_by_its_own_images() -> None:
    known = GateReference.of(
        make_reference({"early": [90.0] * 30, "pro": [LUMA - 1, LUMA + 1] * 15}, TRAINED_ON)
    )
    gate = Gate(DEFAULT, known)

    assert gate.judge(NEW, "early", is_finite=True).reason is RejectionReason.LUMA
    assert gate.judge(NEW, "pro", is_finite=True).reason is None


@pytest.mark.parametrize(
    "copy",
    [TRAINED_ON[2], TRAINED_ON[2][:, ::-1].copy(), np.roll(TRAINED_ON[2], 4, axis=0)],
    ids=["exact", "mirrored", "shifted"],
)
@pytest.mark.parametrize("level", [DEFAULT, STRICT])
def test_a_memorized_image_is_refused(copy: ImageArray, level: GateLevel) -> None:
    known = GateReference.of(reference(-100, 100))

    assert judged(copy, level, known)[0] is RejectionReason.MEMORIZED


def test_strict_refuses_what_is_more_alike_than_unseen_real_images_are() -> None:
    blend = (0.6 * NEW + 0.4 * TRAINED_ON[0]).round().astype(np.uint8)
    known = GateReference.of(reference(-100, 100))
    assert known.copies is not None
    correlation = known.copies.nearest(blend)

    for unseen, reason in ((correlation - 0.01, RejectionReason.MEMORIZED), (correlation + 0.01, None)):
        strict = replace(known, copy_above=0.9, strict_copy_above=unseen)
        assert judged(blend, STRICT, strict)[0] is reason
        assert judged(blend, DEFAULT, strict)[0] is None


def test_strict_is_never_looser_than_default() -> None:
    luma = {"early": [LUMA] * 30}
    for unseen in (0.0, 0.4, 0.8):
        known = GateReference.of(make_reference(luma, TRAINED_ON, unseen=unseen))
        assert 0 < known.strict_copy_above <= known.copy_above == 0.52


def test_without_a_reference_set_nothing_is_said_of_luma_and_copies() -> None:
    assert judged(TRAINED_ON[0], known=NO_REFERENCE) == (None, {"luma_sd", "scale_bar"})


def test_the_luma_of_few_real_images_is_no_measure() -> None:
    few = GateReference.of(reference(50, 60, count=MIN_REAL_IMAGES - 1))
    enough = GateReference.of(reference(50, 60, count=MIN_REAL_IMAGES))

    assert judged(NEW, known=few) == (None, {"luma_sd", "scale_bar", "nearest"})
    assert judged(NEW, known=enough)[0] is RejectionReason.LUMA


def test_a_verdict_is_the_same_each_time() -> None:
    gate = Gate(DEFAULT, GateReference.of(reference()))

    assert len({str(gate.judge(NEW, "early", is_finite=True)) for _ in range(5)}) == 1


def test_off_has_no_gate() -> None:
    with pytest.raises(KeyError):
        Gate(GateLevel.OFF, NO_REFERENCE)


@pytest.mark.parametrize("size_px", [16, 31, 224, 256])
def test_spread_of_luma_is_that_of_whole_numbers(size_px: int) -> None:
    noise = np.random.default_rng(size_px).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    rows = noise[: round(size_px * 192 / 224)].astype(np.int64)
    luma = (77 * rows[..., 0] + 150 * rows[..., 1] + 29 * rows[..., 2] + 128) >> 8

    measured = Gate(DEFAULT, NO_REFERENCE).judge(noise, "early", is_finite=True).measured

    assert measured["luma_sd"] == round(float(luma.std()), 2)
