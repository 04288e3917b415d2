"""Kinds within classes: chosen in their shares by the direction of two numbers, whatever their length."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model_store.generators.kinds import KindChoice
from model_store.generators.masan import MasanConfig, MasanGenerator
from model_store.generators.registry import build_generator
from model_store.weights import encode_weights

SHARES = ((0.25, 0.75), (1.0,), (0.1, 0.2, 0.7))
KINDS_OF = ((0, 1), (2,), (3, 4, 5))


def one_hot(*indices: int, of: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(indices), of).float()


def chosen(class_index: int, choice: Tensor) -> Tensor:
    """Indices of kinds, [N]."""
    kind: Tensor = KindChoice(SHARES)(choice, one_hot(class_index, of=3).expand(len(choice), -1))
    return kind.argmax(dim=1)


def generator_with(**changes: Any) -> MasanGenerator:
    torch.manual_seed(0)
    values = {"class_count": 3, "resolution": 16, "latent_dim": 8, "base_channels": 2, "attention_groups": 2}
    return MasanGenerator(MasanConfig(**(values | changes))).eval()


@pytest.mark.parametrize("class_index", range(3))
def test_kinds_of_a_class_come_in_their_shares_and_no_other_kinds(class_index: int) -> None:
    choice = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))

    counts = torch.bincount(chosen(class_index, choice), minlength=6) / len(choice)

    expected = torch.zeros(6)
    expected[list(KINDS_OF[class_index])] = torch.tensor(SHARES[class_index])
    assert counts.tolist() == pytest.approx(expected.tolist(), abs=0.005)


def test_every_image_is_of_one_kind() -> None:
    choice = torch.cat(
        [torch.randn(1000, 2), torch.tensor([[0.0, 0.0], [-1.0, 0.0], [-1.0, -0.0], [0.0, 1.0]])]
    )

    kind = KindChoice(SHARES)(choice, one_hot(2, of=3).expand(len(choice), -1))

    assert kind.sum(dim=1).tolist() == [1.0] * len(choice)


def test_a_truncated_latent_is_of_the_same_kind() -> None:
    choice = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))

    assert chosen(2, choice).tolist() == chosen(2, 0.3 * choice).tolist()


def test_two_more_numbers_of_the_latent_choose_what_the_generator_is_told() -> None:
    plain, parted = generator_with(), generator_with(kind_shares=SHARES)
    z = torch.randn(8, parted.latent_dim, generator=torch.Generator().manual_seed(0))
    kinds = parted.kinds(z[:, -2:], one_hot(*[2] * 8, of=3)) if parted.kinds else None
    assert kinds is not None and len(set(kinds.argmax(dim=1).tolist())) > 1

    assert parted.latent_dim == plain.latent_dim + 2
    assert torch.equal(parted(z, one_hot(*[2] * 8, of=3)), parted(z, kinds))


def test_an_image_of_a_named_kind_has_nothing_left_to_choose() -> None:
    parted = generator_with(kind_shares=SHARES)
    z = torch.randn(1, parted.latent_dim)
    other = z.clone()
    other[:, -2:] *= -1

    assert torch.equal(parted(z, one_hot(4, of=6)), parted(other, one_hot(4, of=6)))


def test_nothing_of_the_choice_is_stored_with_the_weights() -> None:
    parted = generator_with(kind_shares=SHARES)

    assert set(parted.state_dict()) == {*generator_with().state_dict(), "mapping.kind.weight"}
    assert len(encode_weights(parted)) > 0


def test_a_manifest_names_the_shares_as_lists() -> None:
    config = {"class_count": 2, "resolution": 16, "base_channels": 2, "kind_shares": [[0.5, 0.5], [1.0]]}

    built = build_generator("masan", config)

    assert isinstance(built, MasanGenerator)
    assert built.config.kind_shares == ((0.5, 0.5), (1.0,))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (((1.0,),), "kind_shares are of 1 classes, not of 3"),
        (((1.0,), (0.5, 0.4), (1.0,)), "kind_shares of class 1 (0.5, 0.4) are not above 0 with a sum of 1"),
        (((1.0,), (1.0, 0.0), (1.0,)), "kind_shares of class 1 (1.0, 0.0) are not above 0"),
        (((1.0,), (1.0,), ()), r"kind_shares of class 2 () are not above 0"),
    ],
)
def test_shares_that_are_no_whole_are_refused(shares: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        MasanConfig(class_count=3, kind_shares=shares)

    assert message in str(error.value)
