from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from training.adversaries import PixelAdversary, ProjectedAdversary
from training.config import TrainConfig
from training.discriminators.cellgan import Reconstruct, random_corner, reconstruction_targets
from training.presets import preset

CLASSES = 2


def pixel_config(*settings: str) -> TrainConfig:
    """32 px, four base channels, nothing augmented."""
    base = ["discriminator.kind=pixel", "run.resolution=32", "augment.policy=''"]
    return preset("smoke").with_settings([*base, *settings])


def projected_config(*settings: str) -> TrainConfig:
    return preset("smoke").with_settings(["discriminator.kind=projected", "augment.policy=''", *settings])


def build(config: TrainConfig, **options: Any) -> PixelAdversary | ProjectedAdversary:
    torch.manual_seed(0)
    kind = ProjectedAdversary if config.discriminator.kind == "projected" else PixelAdversary
    return kind(config, CLASSES, nullcontext, torch.Generator().manual_seed(1), **options)


def pixel(*settings: str, **options: Any) -> PixelAdversary:
    adversary = build(pixel_config(*settings), **options)
    assert isinstance(adversary, PixelAdversary)
    return adversary


def batch(resolution: int, n: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth blobs as real images, noise as generated ones with a graph, labels."""
    random = torch.Generator().manual_seed(2)
    blobs = torch.nn.functional.interpolate(
        torch.rand(n, 3, 4, 4, generator=random) * 2 - 1, size=resolution, mode="bilinear"
    )
    noise = torch.rand(n, 3, resolution, resolution, generator=random) * 2 - 1
    return blobs, noise.requires_grad_(True), torch.eye(CLASSES)[torch.arange(n) % CLASSES]


def vectors(adversary: PixelAdversary | ProjectedAdversary) -> list[Tensor]:
    return [value.clone() for value in adversary.normalize.state_dict().values()]


@pytest.mark.parametrize("config", [pixel_config(), projected_config()], ids=["pixel", "projected"])
def test_discriminator_separates_real_from_noise(config: TrainConfig) -> None:
    adversary = build(config.with_settings(["discriminator.init_gain=1.0"]))
    real, fake, label = batch(config.run.resolution)
    optimizer = torch.optim.Adam(
        [p for p in adversary.module.parameters() if p.requires_grad], 2e-3, (0.0, 0.99)
    )
    adversary.observe(real, fake, label)
    key = "pixel_logit" if config.discriminator.kind == "pixel" else "logit"

    for _ in range(50):
        loss, terms = adversary.discriminator_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        adversary.after_step()
        if terms[f"{key}_real"] > 0.8 and terms[f"{key}_fake"] < -0.8:
            break

    assert terms[f"{key}_real"] > 0.8
    assert terms[f"{key}_fake"] < -0.8


@pytest.mark.parametrize("config", [pixel_config(), projected_config()], ids=["pixel", "projected"])
def test_discriminators_loss_leaves_generated_images_alone(config: TrainConfig) -> None:
    adversary = build(config)
    real, fake, label = batch(config.run.resolution)
    adversary.observe(real, fake, label)

    adversary.discriminator_loss()[0].backward()

    assert fake.grad is None
    assert all(p.grad is not None for p in adversary.module.parameters() if p.requires_grad)


@pytest.mark.parametrize("config", [pixel_config(), projected_config()], ids=["pixel", "projected"])
def test_generators_loss_reaches_the_images_and_leaves_the_discriminator_alone(config: TrainConfig) -> None:
    adversary = build(config)
    real, fake, label = batch(config.run.resolution)
    adversary.observe(real, fake, label)

    adversary.generator_loss().backward()

    assert fake.grad is not None
    assert fake.grad.flatten(1).abs().sum(dim=1).min() > 0
    assert all(p.grad is None for p in adversary.module.parameters())


@pytest.mark.parametrize("config", [pixel_config(), projected_config()], ids=["pixel", "projected"])
def test_one_power_iteration_follows_each_step_and_no_loss_makes_one(config: TrainConfig) -> None:
    adversary, reference = build(config), build(config)
    adversary.observe(*batch(config.run.resolution))
    before = vectors(adversary)

    adversary.discriminator_loss()
    adversary.generator_loss()
    after_losses = vectors(adversary)
    adversary.after_step()

    with torch.no_grad():
        reference.normalize({n: p for n, p in reference.module.named_parameters() if p.requires_grad})
    assert all(torch.equal(a, b) for a, b in zip(before, after_losses, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(vectors(adversary), vectors(reference), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(before, vectors(adversary), strict=True))


def test_pixel_loss_is_the_sum_of_the_published_terms() -> None:
    adversary = pixel("losses.r1_gamma=0.02", "losses.r1_every=1", "losses.reconstruction_weight=0.5")
    real, fake, label = batch(32)
    adversary.observe(real, fake, label)
    corner = random_corner(32, aligned=False, generator=torch.Generator().manual_seed(1))

    loss, terms = adversary.discriminator_loss()

    weights = adversary.normalize(dict(adversary.module.named_parameters()), iterations=0)

    def run(images: Tensor, *reconstruct: Reconstruct) -> Any:
        return functional_call(adversary.module, weights, (images, label, *reconstruct))

    watched = real.clone().requires_grad_(True)
    logits = run(watched).logits.full
    (gradient,) = torch.autograd.grad(logits.sum(), watched)
    fakes = run(fake).logits.full
    part, whole = run(real, Reconstruct(8, corner)).decoded
    target_part, target_whole = reconstruction_targets(real, corner)
    hinge = (1 - logits).clamp(min=0).mean() + (1 + fakes).clamp(min=0).mean()
    reconstruction = (part - target_part).abs().mean() + (whole - target_whole).abs().mean()
    r1 = 0.01 * gradient.square().sum() / 8
    torch.testing.assert_close(terms["r1"], r1.detach())
    torch.testing.assert_close(terms["reconstruction"], reconstruction.detach())
    expected = hinge + fakes.mean() - logits.mean() + 0.5 * reconstruction + r1
    torch.testing.assert_close(loss, expected)


def test_plain_head_takes_no_direction_term() -> None:
    adversary = pixel(
        "discriminator.san_head=plain", "losses.r1_gamma=0.0", "losses.reconstruction_weight=0.0"
    )
    real, fake, label = batch(32)
    adversary.observe(real, fake, label)

    loss, terms = adversary.discriminator_loss()

    assert loss.item() == pytest.approx(
        2.0 - float(terms["pixel_logit_real"] - terms["pixel_logit_fake"]), abs=1e-4
    )
    assert set(terms) == {"pixel_logit_real", "pixel_logit_fake"}


def test_lazy_r1_is_rare_and_scaled_up() -> None:
    often, lazily = pixel("losses.r1_every=1"), pixel("losses.r1_every=3")
    for adversary in (often, lazily):
        adversary.observe(*batch(32))

    always = [adversary_terms["r1"] for _, adversary_terms in (often.discriminator_loss() for _ in range(4))]
    sometimes = [terms.get("r1") for _, terms in (lazily.discriminator_loss() for _ in range(4))]

    assert [value is None for value in sometimes] == [False, True, True, False]
    assert sometimes[0] is not None
    torch.testing.assert_close(sometimes[0], 3 * always[0])


def test_r1_sees_the_real_images_without_augmentation() -> None:
    plain, augmented = pixel(), pixel("augment.policy=color,cutout")
    for adversary in (plain, augmented):
        adversary.observe(*batch(32))

    (_, with_none), (_, with_all) = plain.discriminator_loss(), augmented.discriminator_loss()

    torch.testing.assert_close(with_none["r1"], with_all["r1"])
    assert not torch.isclose(with_none["pixel_logit_real"], with_all["pixel_logit_real"])


def test_decoders_are_built_only_where_they_reconstruct() -> None:
    with_decoders, without = (
        [name for name, _ in pixel(f"losses.reconstruction_weight={weight}").module.named_parameters()]
        for weight in (1.0, 0.0)
    )

    assert any(name.startswith("decoders") for name in with_decoders)
    assert not any(name.startswith("decoders") for name in without)


def test_san_directions_and_attention_of_the_head_take_no_spectral_norm() -> None:
    names = pixel().normalize.names

    assert "stem.weight" in names
    assert not any(name.startswith("head") for name in names)
    assert {"head.to_logits.weight", "head.class_embedding.weight"} < set(
        pixel("discriminator.san_head=plain").normalize.names
    )


def test_discriminators_with_and_without_san_start_alike() -> None:
    san, plain = (
        dict(pixel(f"discriminator.san_head={head}").module.named_parameters())
        for head in ("per_class", "plain")
    )

    trunk = [name for name in san if not name.startswith("head")]
    assert all(torch.equal(san[name], plain[name]) for name in trunk)
    w0, embedding = plain["head.to_logits.weight"].flatten(), plain["head.class_embedding.weight"]
    both = w0 / w0.norm() + (embedding / torch.linalg.matrix_norm(embedding, ord=2)).t()
    torch.testing.assert_close(san["head.weight"], both / both.norm(dim=1, keepdim=True))


def test_lecam_and_step_count_go_with_the_state() -> None:
    settings = ("losses.lecam_weight=0.1", "losses.r1_every=3")
    first, second = pixel(*settings), pixel(*settings)
    first.observe(*batch(32))
    for _ in range(2):
        first.discriminator_loss()

    second.module.load_state_dict(first.module.state_dict())

    assert second.steps.count == 2
    assert second.lecam is not None
    assert float(second.lecam.real_mean) != 0
    assert float(second.lecam.calls) == 2


@pytest.mark.parametrize("gan_loss", ["hinge", "lsgan", "nonsat"])
@pytest.mark.parametrize("config", [pixel_config(), projected_config()], ids=["pixel", "projected"])
def test_every_base_loss_teaches_every_part(config: TrainConfig, gan_loss: str) -> None:
    adversary = build(config.with_settings([f"losses.gan_loss={gan_loss}"]))
    adversary.observe(*batch(config.run.resolution))

    adversary.discriminator_loss()[0].backward()

    grads = {name: p.grad for name, p in adversary.module.named_parameters() if p.requires_grad}
    assert [name for name, grad in grads.items() if grad is None or not torch.isfinite(grad).all()] == []


def test_weight_is_the_one_given() -> None:
    assert pixel().weight == 1.0
    assert pixel(weight=0.25).weight == 0.25


def test_bf16_runs_convolutions_in_bf16_and_losses_in_float32() -> None:
    torch.manual_seed(0)
    adversary = PixelAdversary(
        pixel_config(), CLASSES, lambda: torch.autocast("cpu", torch.bfloat16), torch.Generator()
    )
    exact = pixel()
    for one in (adversary, exact):
        one.observe(*batch(32))

    (loss, terms), (reference, _) = adversary.discriminator_loss(), exact.discriminator_loss()

    assert loss.dtype == terms["r1"].dtype == torch.float32
    assert loss.item() != reference.item()
    assert loss.item() == pytest.approx(reference.item(), rel=0.05)


def test_color_energy_drives_brightness_apart_where_real_images_differ_in_it() -> None:
    config = projected_config("losses.color_energy_weight=1", "augment.policy=color")
    adversary = build(config)
    resolution = config.run.resolution
    label = torch.tensor([[1.0, 0.0]]).expand(8, 2)
    levels = torch.linspace(-0.8, 0.8, 8).view(8, 1, 1, 1)
    real = levels.expand(8, 3, resolution, resolution)
    adversary.observe(real, real * 0.1, label)  # remembers the real ones
    brightness = (levels * 0.1).requires_grad_()

    adversary.observe(real, brightness.expand(8, 3, resolution, resolution), label)
    _, terms = adversary.discriminator_loss()
    assert isinstance(adversary, ProjectedAdversary)
    (gradient,) = torch.autograd.grad(adversary.color_distance, brightness)

    assert terms["color_energy"] > 0
    assert gradient[0].item() > 0 > gradient[-1].item()  # the darkest goes darker, the brightest brighter
    with_color, adversary.color_energy = adversary.generator_loss(), None
    assert (with_color - adversary.generator_loss()).item() == pytest.approx(
        terms["color_energy"].item(), rel=1e-4
    )
