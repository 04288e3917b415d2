"""Figures of a report keep their ranges, survive JSON, and hold nothing that no reader knows."""

import pytest
from pydantic import BaseModel, ValidationError

from model_store.report_figures import ClassChecks, ColorFigures, CopyingFigures, FewShot, FloorFigures

Row = dict[str, object]

FLOOR: Row = {
    "n": 20,
    "frechet_distance": 8.0,
    "frechet_distance_sd": 0.5,
    "kid": -0.001,
    "kid_sd": 0.0,
    "mmd": 0.02,
}
COPYING: Row = {
    "n_train": 80,
    "n_held_out": 20,
    "n_fake": 50,
    "frechet_held_out": 70.0,
    "frechet_held_out_floor": 20.0,
    "c_t": None,
    "c_t_reason": "not interpretable: too far",
    "c_t_floor": -1.2,
    "authenticity": 0.9,
    "authenticity_floor": 0.66,
    "authenticity_floor_sd": 0.03,
    "authenticity_held_out": 0.7,
}
COLOR: Row = {
    "rgb_delta": (-1.0, 0.5, 2.0),
    "background_luma": 251.0,
    "background_luma_real": 252.0,
    "dark_ratio": 0.01,
    "dark_ratio_real": 0.0,
    "luma_wasserstein": 2.4,
    "luma_wasserstein_floor": 0.6,
}
FEW_SHOT: Row = {
    "n_per_class": 10,
    "seeds": 5,
    "real_accuracy": 0.8,
    "real_accuracy_sd": 0.02,
    "augmented_accuracy": 0.78,
    "augmented_accuracy_sd": 0.02,
    "gain": -0.02,
    "gain_sd": 0.03,
}
ROWS: list[tuple[type[BaseModel], Row]] = [
    (FloorFigures, FLOOR),
    (CopyingFigures, COPYING),
    (ColorFigures, COLOR),
    (FewShot, FEW_SHOT),
]


@pytest.mark.parametrize(("model", "row"), ROWS, ids=lambda part: getattr(part, "__name__", ""))
def test_figures_survive_json_and_refuse_unknown_fields(
    model: type[BaseModel], row: dict[str, object]
) -> None:
    figures = model.model_validate(row)

    assert model.model_validate_json(figures.model_dump_json()) == figures
    with pytest.raises(ValidationError, match="other"):
        model.model_validate(row | {"other": 1})


@pytest.mark.parametrize(
    ("model", "row", "change"),
    [
        (FloorFigures, FLOOR, {"n": 1}),
        (FloorFigures, FLOOR, {"recall": 1.01}),
        (FloorFigures, FLOOR, {"kid": float("nan")}),
        (CopyingFigures, COPYING, {"authenticity": -0.1}),
        (ColorFigures, COLOR, {"rgb_delta": (1.0, 2.0)}),
        (ColorFigures, COLOR, {"luma_wasserstein": -1.0}),
        (FewShot, FEW_SHOT, {"seeds": 1}),
        (ClassChecks, {"n": 4}, {"flagged": [{"index": -1, "similarity": 0.9, "source": "a"}]}),
    ],
)
def test_impossible_figures_are_refused(
    model: type[BaseModel], row: dict[str, object], change: dict[str, object]
) -> None:
    model.model_validate(row)

    with pytest.raises(ValidationError, match=next(iter(change))):
        model.model_validate(row | change)
