"""A run's generator as it is served: averaged weights with spectral norm folded into them."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from model_store.generators.kinds import Shares
from model_store.generators.layers import use_transposed_convolutions
from model_store.generators.registry import build_generator
from training.config import GeneratorOptions, TrainConfig
from training.spectral_norm import SpectralNorm, spectral_weights

EXPORT_POWER_ITERATIONS: Final = 50
"""Power iterations before folding the averaged weights; their singular vectors lag behind the live ones."""


def generator_config(config: TrainConfig, class_count: int, kind_shares: Shares = ()) -> dict[str, Any]:
    """Arguments of the generator's architecture, as they stand in a manifest."""
    options = config.generator
    resolutions = options.attention_resolutions
    return {
        "class_count": class_count,
        "resolution": config.run.resolution,
        "latent_dim": options.latent_dim,
        "base_channels": options.base_channels,
        "attention_sites": options.attention_sites,
        "attention_groups": options.attention_groups,
        "attention_min_width": options.attention_min_width,
        "attention_resolutions": None if resolutions is None else list(resolutions),
        "adain_input": options.adain_input,
        "rgb_skip": options.rgb_skip,
        "output_gain": options.output_gain,
        "noise_resolutions": list(options.noise_resolutions),
        "refine_resolutions": list(options.refine_resolutions),
        "padding": options.padding,
        "chroma_resolution": options.chroma_resolution,
        "kind_shares": [list(of_class) for of_class in kind_shares],
    }


def normalized_weights(generator: nn.Module, options: GeneratorOptions) -> list[str]:
    """The generator's weights that spectral norm divides; refinements start at zero, which has no norm."""
    return spectral_weights(generator, exclude=(*options.unnormalized, "refine"))


def fold_generator(
    config: TrainConfig,
    class_count: int,
    parameters: Mapping[str, Tensor],
    singular_vectors: Mapping[str, Tensor],
    kind_shares: Shares = (),
) -> nn.Module:
    """A plain generator with spectral norm folded into its weights: eval mode, float32, on the CPU.

    parameters: the (averaged) trained ones. singular_vectors: state of the run's SpectralNorm.
    """
    plain = build_generator("masan", generator_config(config, class_count, kind_shares))
    normalize = SpectralNorm(plain, normalized_weights(plain, config.generator))
    normalize.load_state_dict({name: value.cpu() for name, value in singular_vectors.items()})
    with torch.no_grad():
        folded = normalize(
            {name: value.detach().cpu() for name, value in parameters.items()},
            iterations=EXPORT_POWER_ITERATIONS,
        )
    plain.load_state_dict(folded)
    return use_transposed_convolutions(plain.eval().requires_grad_(False))
