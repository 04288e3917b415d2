"""A run's discriminators beside its published generator, for a later run to go on with.

They are not needed to draw, and an attacker who has them can tell a little better which images were trained
on (Hayes et al. 2019): a publication keeps them only where it is told to.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model_store.errors import WeightsCorruptedError
from model_store.store import Checkpoint, ModelStore

DISCRIMINATORS_FILE: Final = "discriminators.safetensors"
_REMEMBERED: Final = ("energy.real", "energy.labels")
"""Buffers with features of the last real images, which a run fills anew within a few steps."""


def encode_discriminators(state: Mapping[str, Any]) -> bytes:
    """The discriminators of a training state, floating tensors as float16, remembered images left out.

    Raises ValueError naming a tensor that is not finite as float16.
    """
    tensors = {}
    for name, value in state["D"].items():
        if isinstance(value, Tensor) and not name.endswith(_REMEMBERED):
            narrow = value.detach().cpu().to(torch.float16 if value.is_floating_point() else value.dtype)
            if not narrow.isfinite().all():
                raise ValueError(f"discriminator tensor {name} is not finite as float16")
            tensors[name] = narrow.contiguous()
    return save(tensors)


def load_discriminators(store: ModelStore, checkpoint: Checkpoint) -> dict[str, Tensor] | None:
    """What a checkpoint kept of its discriminators, None where it kept nothing.

    Raises WeightsCorruptedError for bytes that are not the published ones.
    """
    if all(entry.path != DISCRIMINATORS_FILE for entry in checkpoint.manifest.reports):
        return None
    try:
        return load(store.read_file(checkpoint, DISCRIMINATORS_FILE))
    except SafetensorError as error:
        path = f"{checkpoint.folder}/{DISCRIMINATORS_FILE}"
        raise WeightsCorruptedError(path, f"not a safetensors file: {error}") from error
