import pytest
import torch

from model_store.errors import ArchitectureUnsupportedError
from model_store.generators.registry import Generator, build_generator
from tests.checkpoints import tiny_config


@pytest.mark.parametrize("architecture", ["masan", "cellgan"])
def test_built_generator_is_what_sampling_needs(architecture: str) -> None:
    generator = build_generator(architecture, tiny_config())

    assert isinstance(generator, Generator)
    assert (generator.latent_dim, generator.class_count, generator.resolution) == (16, 2, 16)
    assert generator(torch.zeros(1, 16), torch.eye(2)[:1]).shape == (1, 3, 16, 16)


def test_cellgan_is_masan_without_attention() -> None:
    config = tiny_config(resolution=64)

    masan, cellgan = (set(build_generator(name, config).state_dict()) for name in ("masan", "cellgan"))

    assert cellgan < masan
    assert all(name.startswith("attention.") for name in masan - cellgan)


def test_config_read_from_json_gives_the_same_network() -> None:
    config = tiny_config(resolution=64)

    names = [
        set(build_generator("masan", {**config, "attention_resolutions": given}).state_dict())
        for given in ([64], (64,), None)
    ]

    assert names[0] == names[1] == names[2]


def test_unknown_architecture_is_named() -> None:
    with pytest.raises(ArchitectureUnsupportedError, match="stylegan"):
        build_generator("stylegan", {})


def test_config_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        build_generator("masan", {"class_count": 2, "colour": 1})
