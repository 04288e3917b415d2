import pytest
import torch
from torch import Tensor

from training.discriminators.masan import SharedPlusClassHead, build_head
from training.discriminators.san import SanHead, SanLogits
from training.losses import GAN_LOSSES


def head(classes: int = 3, features: int = 5) -> SanHead:
    torch.manual_seed(0)
    head = SanHead(classes, features)
    with torch.no_grad():
        head.scale.copy_(torch.tensor([0.5, 2.0, 3.0]))
    return head


def batch(n: int = 4, features: int = 5, positions: int = 6) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    h = torch.randn(n, features, positions, generator=random).requires_grad_(True)
    return h, torch.eye(3)[torch.arange(n) % 3]


def test_function_direction_and_full_are_the_same_numbers() -> None:
    h, label = batch()
    san = head()

    function, direction, full = san(h, label)

    torch.testing.assert_close(function, full)
    torch.testing.assert_close(direction, full)
    expected = san.scale[1] * (san.weight[1] @ h[1])  # unit rows: nothing more to normalise
    torch.testing.assert_close(full[1], expected)


def test_direction_never_teaches_features_and_function_never_teaches_directions() -> None:
    h, label = batch()
    san = head()

    from_direction = torch.autograd.grad(
        san(h, label).direction.square().sum(), [h, san.scale], allow_unused=True
    )
    from_function = torch.autograd.grad(
        san(h, label).function.square().sum(), [san.weight, h, san.scale], allow_unused=True
    )

    assert all(grad is None or torch.count_nonzero(grad) == 0 for grad in from_direction)
    assert from_function[0] is None or torch.count_nonzero(from_function[0]) == 0
    assert all(torch.count_nonzero(grad) > 0 for grad in from_function[1:])


def test_directions_gradient_is_tangential() -> None:
    h, label = batch()
    san = head()

    (grad,) = torch.autograd.grad(san(h, label).direction.square().mean(), san.weight)

    assert grad.norm(dim=1).min() > 1e-3
    assert (grad * san.weight).sum(dim=1).abs().max() < 1e-6


def test_directions_are_unit_after_each_step() -> None:
    h, label = batch()
    san = head()
    optimizer = torch.optim.Adam(san.parameters(), lr=0.3)
    for _ in range(3):
        optimizer.zero_grad()
        san(h, label).direction.mean().backward()
        optimizer.step()
        assert (san.weight.norm(dim=1) - 1).abs().max() > 1e-3

        san.normalize_()

        torch.testing.assert_close(san.weight.norm(dim=1), torch.ones(3))


def test_label_of_one_image_changes_its_logits_alone() -> None:
    h, label = batch()
    san = head()
    relabelled = label.clone()
    relabelled[2] = label[0]

    changed = (san(h, relabelled).full - san(h, label).full).abs().amax(dim=1)

    assert (changed > 0).tolist() == [False, False, True, False]


def test_plain_head_without_lambda_is_the_projection_discriminators_loss() -> None:
    h, label = batch()
    plain = build_head("plain", 3, 5)

    logits = plain(h, label)
    real, fake = logits.split(2)
    loss = GAN_LOSSES["hinge"].discriminator_loss(real, fake, san_lambda=0.0)

    parameters = dict(plain.named_parameters())  # type: ignore[attr-defined]
    w0, embedding = parameters["to_logits.weight"].flatten(), parameters["class_embedding.weight"].t()
    expected = torch.stack([(w0 + embedding[i % 3]) @ h[i] for i in range(4)])
    torch.testing.assert_close(logits.full, expected)
    torch.testing.assert_close(
        loss, (1 - expected[:2]).clamp(min=0).mean() + (1 + expected[2:]).clamp(min=0).mean()
    )


def test_san_starts_from_the_plain_heads_directions() -> None:
    torch.manual_seed(0)
    plain = build_head("plain", 3, 5)
    torch.manual_seed(0)
    per_class = build_head("per_class", 3, 5)

    parameters = dict(plain.named_parameters())  # type: ignore[attr-defined]
    w0, embedding = parameters["to_logits.weight"].flatten(), parameters["class_embedding.weight"]
    effective = w0 / w0.norm() + (embedding / torch.linalg.matrix_norm(embedding, ord=2)).t()
    assert isinstance(per_class, SanHead)
    torch.testing.assert_close(per_class.weight, effective / effective.norm(dim=1, keepdim=True))
    assert per_class.scale.tolist() == [1.0, 1.0, 1.0]


def test_shared_and_class_logits_are_added() -> None:
    h, label = batch()
    both = build_head("shared_plus_class", 3, 5)

    assert isinstance(both, SharedPlusClassHead)
    expected = both.shared.weight[0] @ h[1] + both.per_class.weight[1] @ h[1]
    for logits in both(h, label):
        torch.testing.assert_close(logits[1], expected)
    with torch.no_grad():
        both.shared.weight.mul_(3)
        both.per_class.weight.mul_(3)
    both.normalize_()
    torch.testing.assert_close(both.shared.weight.norm(), torch.tensor(1.0))
    torch.testing.assert_close(both.per_class.weight.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(("first", "second"), [(1, 3), (0, 4)])
def test_split_keeps_images_together(first: int, second: int) -> None:
    values = torch.arange(8.0).reshape(4, 2)

    a, b = SanLogits(values, values + 10, values + 20).split(first)

    assert [len(t) for t in (*a, *b)] == [first] * 3 + [second] * 3
    assert torch.equal(torch.cat([a.direction, b.direction]), values + 10)
