import pytest

from training.diffusion.config import ldm
from training.diffusion.cost import cost


def test_cost_of_the_full_baseline_is_the_published_one() -> None:
    numbers = cost(ldm())

    assert numbers["autoencoder_parameters"] == 15_481_255
    assert numbers["denoiser_parameters"] == 45_216_772
    assert numbers["encode_flops"] == pytest.approx(36.4e9, rel=0.05)
    assert numbers["decode_flops"] == pytest.approx(123.7e9, rel=0.05)
    assert numbers["denoise_flops"] == pytest.approx(14.5e9, rel=0.05)
    assert numbers["sample_flops"] == 100 * numbers["denoise_flops"] + numbers["decode_flops"]
