"""Every figure stands beside its floors; matrices, means and CMMD follow their definitions."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from tests.named_extractor import NamedExtractor
from training.evaluation.figures import cmmd_report, extractor_report
from training.evaluation.frechet import frechet_distance
from training.evaluation.kernel import gaussian_mmd, kid
from training.evaluation.reference import Reference

FloatArray = npt.NDArray[np.float32]


def samples(seed: int, centre: float, count: int) -> FloatArray:
    return np.random.default_rng(seed).normal(centre, 1, size=(count, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(
        extractor=NamedExtractor("inception-v3", "6726825d" + "0" * 56, 6),
        classes=("a", "b"),
        features=np.concatenate([samples(0, 1, 40), samples(1, -1, 60)]),
        labels=np.repeat([0, 1], [40, 60]),
        blocks=np.tile(np.arange(5), 20),
        digest="f" * 64,
    )


@pytest.fixture(scope="module")
def generated() -> Mapping[str, FloatArray]:
    return {"a": samples(2, 0.9, 30), "b": samples(3, -1.1, 24)}


def test_a_class_has_its_own_counts_figures_and_floors(
    reference: Reference, generated: Mapping[str, FloatArray]
) -> None:
    report = extractor_report(reference, generated)

    a = report.classes["a"]
    assert (a.n_real, a.n_fake, a.floor_n) == (40, 30, 20)
    assert a.frechet_distance == pytest.approx(frechet_distance(generated["a"], reference.of_class("a")))
    assert a.floor_figures is not None and a.floor_blocked_figures is not None
    assert (a.floor_figures.frechet_distance, a.floor_figures.kid) == (a.floor, a.kid_floor)
    assert a.floor_blocked_figures.frechet_distance == a.floor_blocked
    for floor in (a.floor_figures, a.floor_blocked_figures):
        assert None not in floor.model_dump().values()
    assert a.copying is not None
    assert (a.copying.n_train, a.copying.n_held_out) == (32, 8)
    assert (report.reference_digest, report.fid_protocol, report.pooled) == ("f" * 64, None, None)


def test_matrices_hold_every_pair_of_classes(
    reference: Reference, generated: Mapping[str, FloatArray]
) -> None:
    report = extractor_report(reference, generated)

    a = report.classes["a"]
    real = {slug: reference.of_class(slug) for slug in ("a", "b")}
    assert a.distance_to["b"] == pytest.approx(frechet_distance(generated["a"], real["b"]))
    assert a.kid_to["b"] == pytest.approx(kid(generated["a"], real["b"]).value)
    assert a.kid_to["a"] == pytest.approx(a.kid)
    assert a.real_kid_to == pytest.approx({"b": kid(real["a"], real["b"]).value})
    assert a.real_distance_to == pytest.approx({"b": frechet_distance(real["a"], real["b"])})
    assert report.diagonal_wins


def test_the_mean_is_over_classes_floors_too(
    reference: Reference, generated: Mapping[str, FloatArray]
) -> None:
    report = extractor_report(reference, generated)

    rows = list(report.classes.values())
    assert report.mean.recall == pytest.approx(
        np.mean([row.recall for row in rows if row.recall is not None])
    )
    assert report.mean.floor_figures is not None
    assert report.mean.floor_figures.n == 20
    assert report.mean.floor == pytest.approx(report.mean.floor_figures.frechet_distance)


def test_the_standard_fid_protocol_also_takes_all_classes_at_once(
    reference: Reference, generated: Mapping[str, FloatArray]
) -> None:
    report = extractor_report(reference, generated, fid_protocol="standard")

    made = np.concatenate([generated["a"], generated["b"]])
    assert report.is_inception
    assert report.pooled is not None
    assert (report.pooled.n_real, report.pooled.n_fake, report.pooled.floor_n) == (100, 54, 50)
    assert report.pooled.frechet_distance == pytest.approx(frechet_distance(made, reference.features))
    assert report.pooled.kid_floor < report.pooled.kid + 3 * report.pooled.kid_sd


def test_cmmd_stands_beside_its_floors(reference: Reference, generated: Mapping[str, FloatArray]) -> None:
    report = cmmd_report(reference, generated)

    a = report.classes["a"]
    assert a.cmmd == pytest.approx(gaussian_mmd(generated["a"], reference.of_class("a")))
    assert a.floor > 0
    assert a.floor_blocked is not None
    assert report.mean == pytest.approx((a.cmmd + report.classes["b"].cmmd) / 2)
