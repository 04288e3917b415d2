from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.generators.experts import ExpertsGenerator
from model_store.generators.registry import Generator, build_generator
from model_store.prepared.prepare import prepare_generator
from tests.checkpoints import tiny_config

CLASSES = ([0, 3], [1, 2])
CONFIGS: tuple[dict[str, Any], ...] = (
    {**tiny_config(), "class_count": 4},
    {**tiny_config(), "class_count": 4, "noise_resolutions": [4], "chroma_resolution": 8},
)


def config(**changes: Any) -> dict[str, Any]:
    parts = zip(CONFIGS, CLASSES, strict=True)
    experts = [{"architecture": "masan", "config": c, "classes": classes} for c, classes in parts]
    return {"experts": experts} | changes


def build() -> ExpertsGenerator:
    torch.manual_seed(0)
    generator = build_generator("experts", config())
    assert isinstance(generator, ExpertsGenerator)
    return generator.eval().requires_grad_(False)


def inputs(generator: Generator, labels: list[int]) -> tuple[Tensor, Tensor]:
    z = torch.randn(len(labels), generator.latent_dim, generator=torch.Generator().manual_seed(1))
    return z, F.one_hot(torch.tensor(labels), generator.class_count).float()


def test_each_class_is_drawn_by_its_expert() -> None:
    generator = build()
    first, second = generator.networks
    z, label = inputs(generator, [0, 1, 2, 3])
    assert generator.latent_dim == second.latent_dim == first.latent_dim + 16

    images = generator(z, label)

    by_first, by_second = first(z[:, : first.latent_dim], label), second(z, label)
    assert torch.equal(images[[0, 3]], by_first[[0, 3]])
    assert torch.equal(images[[1, 2]], by_second[[1, 2]])
    assert not torch.equal(by_first[0], by_second[0])


def test_padding_of_a_batch_is_nobodys() -> None:
    generator = build()
    z, label = inputs(generator, [1, 2, 0])
    label[2] = 0

    images = generator(z, label)

    assert torch.equal(images[:2], generator.networks[1](z, label)[:2])
    assert generator(z, torch.zeros_like(label)).shape == images.shape


def test_prepared_experts_draw_the_same() -> None:
    generator = build()
    prepared = prepare_generator(generator, torch.device("cpu"), passes=1)
    z, label = inputs(generator, [3, 2, 1, 0])

    assert prepared.path.startswith("openvino")
    assert (prepared.generator.latent_dim, prepared.generator.class_count) == (generator.latent_dim, 4)
    torch.testing.assert_close(prepared.generator(z, label), generator(z, label), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("experts", "reason"),
    [
        ([], "experts is empty"),
        (
            [{"architecture": "ldm", "config": {}, "classes": [0]}],
            "architecture 'ldm' is not masan or cellgan",
        ),
        (
            [{"architecture": "masan", "config": CONFIGS[0], "classes": [0, 1]}],
            r"\[\[0, 1\]\] are not each of 0..3",
        ),
        (
            [
                {"architecture": "masan", "config": CONFIGS[0], "classes": [0, 1, 2, 3]},
                {"architecture": "masan", "config": CONFIGS[0], "classes": []},
            ],
            r"\[\[0, 1, 2, 3\], \[\]\] are not each of 0..3 once",
        ),
        (
            [
                {"architecture": "masan", "config": CONFIGS[0], "classes": [0, 1]},
                {"architecture": "masan", "config": {**CONFIGS[0], "resolution": 32}, "classes": [2, 3]},
            ],
            r"experts\[1\] draws 4 classes at 32 px, the first one 4 at 16",
        ),
    ],
)
def test_experts_that_cannot_be_are_refused(experts: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build_generator("experts", config(experts=experts))


@pytest.mark.parametrize("part", [{"architecture": "masan", "classes": [0]}, {"network": "masan"}])
def test_expert_without_its_fields_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        build_generator("experts", {"experts": [part]})
