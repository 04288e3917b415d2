import torch
from torch import Tensor

from training.image_random import ImageRandom, draw_for_images, own_share
from training.ranks import Ranks

CPU = torch.device("cpu")


def uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, 3, generator=generator)


def test_ranks_draw_for_their_images_what_one_process_draws() -> None:
    alone = draw_for_images(8, ImageRandom(CPU, 7, Ranks(), 8), uniform)

    parts = [draw_for_images(4, ImageRandom(CPU, 7, Ranks(rank, 2), 4), uniform) for rank in range(2)]

    assert torch.equal(torch.cat(parts), alone)


def test_real_and_generated_images_in_one_batch_keep_their_places() -> None:
    alone = draw_for_images(16, ImageRandom(CPU, 7, Ranks(), 8), uniform)  # 8 real, then 8 generated

    second = draw_for_images(8, ImageRandom(CPU, 7, Ranks(1, 2), 4), uniform)

    assert torch.equal(second, torch.cat([alone[4:8], alone[12:16]]))


def test_state_goes_on_alike_on_all_ranks() -> None:
    first, second = (ImageRandom(CPU, 7, Ranks(rank, 2), 4) for rank in range(2))
    for random in (first, second):
        draw_for_images(4, random, uniform)

    assert torch.equal(first.get_state(), second.get_state())


def test_other_generators_draw_for_all_images_here() -> None:
    draws = torch.arange(5)

    assert own_share(torch.Generator(), draws) is draws
    assert draw_for_images(5, None, uniform).shape == (5, 3)
