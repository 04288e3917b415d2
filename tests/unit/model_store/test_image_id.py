import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.image_id import MAX_SEED, TRUNCATION_STEPS, ImageId, Walk

DIGEST = "0123456789abcdef"


@given(
    seed=st.integers(0, MAX_SEED),
    index=st.integers(0, 10**9),
    attempt=st.integers(0, 9999),
    steps=st.integers(1, TRUNCATION_STEPS),
)
def test_an_id_survives_its_spelling(seed: int, index: int, attempt: int, steps: int) -> None:
    image_id = ImageId(DIGEST, "pro_b", seed, index, attempt, steps / TRUNCATION_STEPS)

    assert ImageId.parse(str(image_id)) == image_id


def test_spelling_of_a_frame_of_a_walk() -> None:
    image_id = ImageId(DIGEST, "pro_b", 7, 3, walk=Walk(to_seed=MAX_SEED, frames=1_000))

    assert str(image_id) == f"{DIGEST}.pro_b.7.3.0.10000.{MAX_SEED}.1000"
    assert ImageId.parse(str(image_id)) == image_id


def test_spelling() -> None:
    assert str(ImageId(DIGEST * 4, "pro_b", 7, 3)) == f"{DIGEST}.pro_b.7.3.0.10000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{DIGEST}.pro_b.7.3.0",
        f"{DIGEST}.pro_b.7.3.0.0",
        f"{DIGEST}.pro_b.7.3.0.10001",
        f"{DIGEST}.pro_b.{MAX_SEED + 1}.3.0.10000",
        f"{DIGEST}.Pro B.7.3.0.10000",
        f"{DIGEST[:8]}.pro_b.7.3.0.10000",
        f"{DIGEST}.pro_b.-1.3.0.10000",
        f"{DIGEST}.pro_b.7.3.0.10000\n",
        f"{DIGEST}.pro_b.7.3.0.10000.8",
        f"{DIGEST}.pro_b.7.3.0.10000.8.1",
        f"{DIGEST}.pro_b.7.3.0.10000.8.1001",
        f"{DIGEST}.pro_b.7.3.0.10000.7.9",
        f"{DIGEST}.pro_b.7.9.0.10000.8.9",
        f"{DIGEST}.pro_b.7.3.1.10000.8.9",
        f"{DIGEST}.pro_b.7.3.0.10000.{MAX_SEED + 1}.9",
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no image id"):
        ImageId.parse(text)
