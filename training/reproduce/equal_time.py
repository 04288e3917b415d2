"""The diffusion model for as long as a GAN: its images by estimate, the hours of both as measured."""

from collections.abc import Sequence
from dataclasses import replace

from training.diffusion.config import DiffusionConfig
from training.reproduce.generators import GeneratorUnit, TrainGenerator
from training.reproduce.rates import Rates
from training.reproduce.recipes import MASAN, Images, diffusion_recipe, gan_recipe, hold_out
from training.reproduce.scale import Scale
from training.reproduce.workspace import Workspace


def with_equal_time(scale: Scale, rates: Rates, images: Images, count: int) -> Scale:
    """The scale with the images of both diffusion stages, in their proportion, that take a GAN's time.

    A GAN: MASAN's recipe. count: of the dataset's images, which are encoded between the stages. Two
    significant digits, so that an estimate of tomorrow gives the same. Both are estimated alike, and a
    machine that is slower than thought is so for both.
    """
    blind = hold_out(images.scope if images.scope != "fold" else "blocks")
    gan = rates.train_gan(gan_recipe(MASAN.preset, scale, images, blind, seed=0))

    def diffusion(share: float) -> float:
        return rates.train_diffusion(diffusion_recipe(_shared(scale, share), images, blind, seed=0), count)

    per_share = 2 * (diffusion(1.0) - diffusion(0.5))
    fixed = diffusion(1.0) - per_share
    share = max((gan - fixed) / per_share, 0.01)
    return replace(
        scale,
        autoencoder_kimg=_two_digits(scale.autoencoder_kimg * share),
        denoiser_kimg=_two_digits(scale.denoiser_kimg * share),
    )


def _shared(scale: Scale, share: float) -> Scale:
    return replace(
        scale, autoencoder_kimg=scale.autoencoder_kimg * share, denoiser_kimg=scale.denoiser_kimg * share
    )


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def training_seconds(units: Sequence[TrainGenerator], rates: Rates) -> dict[str, float]:
    """Mean estimate of one training, `diffusion` and `gan`, of those there are."""
    seconds: dict[str, list[float]] = {}
    for unit in units:
        name = "diffusion" if isinstance(unit.recipe, DiffusionConfig) else "gan"
        seconds.setdefault(name, []).append(unit.seconds(rates))
    return {name: sum(times) / len(times) for name, times in seconds.items()}


def hours_note(workspace: Workspace, units: Sequence[GeneratorUnit]) -> tuple[str, ...]:
    """A sentence on how long the diffusion model trained beside the GANs, if both were trained here."""
    hours: dict[bool, list[float]] = {True: [], False: []}
    for unit in units:
        if isinstance(unit, TrainGenerator):
            is_diffusion = isinstance(unit.recipe, DiffusionConfig)
            hours[is_diffusion].append(workspace.finished(unit)["hours"])
    if not hours[True] or not any(hours[False]):
        return ()
    diffusion, gan = (sum(hours[which]) / len(hours[which]) for which in (True, False))
    return (
        f"The diffusion model trained for {diffusion:.3g} h, a GAN for {gan:.3g} h on average:"
        f" {diffusion / gan:.2g} times as long. Hours are of training alone, as measured on a device that"
        " may have had other work.",
    )
