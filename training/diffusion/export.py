"""From a diffusion run to a generator, and to a published checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, cast

import torch
from torch import Tensor

from model_store.generators.ldm import LdmGenerator
from model_store.generators.registry import build_generator
from model_store.sampling import Pixels, to_pixels
from model_store.store import Checkpoint, ModelStore
from training.diffusion.config import DiffusionConfig
from training.errors import RunInvalidError
from training.evaluation.reference import Progress
from training.export import Publication, TrainedGenerator, publish_generator
from training.run_dir import RunDir

AUTOENCODER_FILE: Final = "autoencoder.pt"
_SAMPLE_BATCH: Final = 8


def generator_config(config: DiffusionConfig, class_count: int, scaling_factor: float) -> dict[str, Any]:
    """Arguments of the `ldm` architecture, as they stand in a manifest."""
    values = dataclasses.asdict(config.networks(class_count, scaling_factor))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def assemble_generator(
    config: DiffusionConfig,
    class_count: int,
    first_stage: Mapping[str, Any],
    denoiser: Mapping[str, Tensor],
    device: torch.device,
) -> LdmGenerator:
    """The generator of a run, in eval mode.

    first_stage: what `autoencoder.pt` holds. denoiser: the (averaged) weights of stage 2.
    """
    options = generator_config(config, class_count, first_stage["scaling_factor"])
    generator = cast("LdmGenerator", build_generator("ldm", options))
    decoder = {
        name: value
        for name, value in first_stage["autoencoder"].items()
        if name.startswith(("decoder.", "post_quant_conv."))
    }
    generator.load_state_dict(decoder | {f"denoiser.{name}": value for name, value in denoiser.items()})
    return generator.to(device).eval().requires_grad_(False)


@torch.inference_mode()
def sample_grid(generator: LdmGenerator, per_class: int) -> Pixels:
    """`per_class` images of each class, one class after another, always from the same noise."""
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(0)
    label = torch.eye(generator.class_count).repeat_interleave(per_class, dim=0)
    z = torch.randn(len(label), generator.latent_dim, generator=random)
    pairs = zip(z.split(_SAMPLE_BATCH), label.split(_SAMPLE_BATCH), strict=True)
    return to_pixels(torch.cat([generator(a.to(device), b.to(device)) for a, b in pairs]))


def publish_diffusion_run(
    run_dir: RunDir, store: ModelStore, publication: Publication, progress: Progress | None = None
) -> Checkpoint:
    """Publish a run's generator with its report; a run that scored nothing has no best state but the last.

    Raises RunInvalidError for a run that has not reached stage 2, and what `publish_generator` raises.
    """
    if not (run_dir.path / publication.state).exists():
        publication = dataclasses.replace(publication, state="state.pt")
    trained = trained_by_diffusion_run(run_dir, publication.state)
    return publish_generator(run_dir, store, publication, trained, progress)


def trained_by_diffusion_run(run_dir: RunDir, state_file: str = "state.pt") -> TrainedGenerator:
    """A run's generator as that state has it. Raises RunInvalidError for a run that has none yet."""
    config = DiffusionConfig.from_dict(run_dir.read_config())
    state = run_dir.load_state(state_file)
    if state["stage"] != "denoiser":
        raise RunInvalidError(f"{run_dir.path} is still training its autoencoder; resume it first")
    first_stage = run_dir.load_state(AUTOENCODER_FILE)
    classes = tuple(state["classes"])
    seconds = first_stage["seconds_trained"] + state["trainer"]["seconds_trained"]
    return TrainedGenerator(
        network=assemble_generator(
            config, len(classes), first_stage, state["trainer"]["average"], torch.device("cpu")
        ),
        architecture="ldm",
        config=generator_config(config, len(classes), first_stage["scaling_factor"]),
        classes=classes,
        recipe=config.recipe,
        data=config.data,
        run=config.run,
        images_seen=state["images_seen"],
        seconds_trained=seconds,
    )
