import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.image_id import MAX_SEED, TRUNCATION_STEPS, ImageId

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
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no image id"):
        ImageId.parse(text)
