"""Safetensors in and out: the only file that turns bytes into a generator."""

from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from model_store.errors import ManifestInvalidError, WeightsCorruptedError
from model_store.generators.layers import fix_transposed_kernels
from model_store.generators.registry import Generator, build_generator
from model_store.manifest import Manifest
from model_store.store import MANIFEST_FILE, Checkpoint, ModelStore

WEIGHTS_FILE = "weights.safetensors"
CPU = torch.device("cpu")


def encode_weights(generator: nn.Module, dtype: torch.dtype = torch.float16) -> bytes:
    """A generator's tensors as safetensors, floating ones in `dtype`.

    Raises ValueError naming the first tensor that is not finite, also if only `dtype` cannot hold it.
    """
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in generator.state_dict().items()
    }
    if bad := _first_not_finite(tensors):
        raise ValueError(f"tensor {bad} is not finite as {dtype}")
    return save(tensors)


def load_generator(store: ModelStore, checkpoint: Checkpoint, device: torch.device) -> Generator:
    """The checkpoint's generator on `device`: float32, in eval mode, without gradients.

    Raises WeightsCorruptedError for bytes that are not the published ones or do not fit the network,
    ArchitectureUnsupportedError, ManifestInvalidError for a config that cannot be built.
    """
    content = store.read_file(checkpoint, checkpoint.manifest.weights.path)
    return decode_weights(content, checkpoint.manifest, checkpoint.folder, device)


def decode_weights(content: bytes, manifest: Manifest, folder: str, device: torch.device = CPU) -> Generator:
    """Like `load_generator`, from bytes that were verified; `folder` names the checkpoint in errors."""
    path = f"{folder}/{manifest.weights.path}"
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise WeightsCorruptedError(path, f"not a safetensors file: {error}") from error
    generator = _build(manifest, folder)
    if reason := _misfit(generator, tensors):
        raise WeightsCorruptedError(path, reason)
    generator.load_state_dict({name: _widened(tensor) for name, tensor in tensors.items()})
    generator.to(device).eval().requires_grad_(False)
    return cast("Generator", fix_transposed_kernels(generator))


def _build(manifest: Manifest, folder: str) -> nn.Module:
    try:
        generator = build_generator(manifest.architecture, manifest.config)
    except (TypeError, ValueError) as error:
        raise ManifestInvalidError(f"{folder}/{MANIFEST_FILE}", f"config: {error}") from error
    if reason := _disagreement(manifest, cast("Generator", generator)):
        raise ManifestInvalidError(f"{folder}/{MANIFEST_FILE}", reason)
    return generator


def _disagreement(manifest: Manifest, generator: Generator) -> str | None:
    if generator.class_count != len(manifest.classes):
        return f"config makes {generator.class_count} classes, but {len(manifest.classes)} are named"
    if generator.resolution != manifest.resolution:
        return f"config makes {generator.resolution} px images, but resolution is {manifest.resolution}"
    return None


def _misfit(generator: nn.Module, tensors: dict[str, Tensor]) -> str | None:
    """Why these tensors are not the network's, None if they are."""
    expected = generator.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        return f"{len(missing)} tensors are missing, first {missing[0]}"
    if unexpected := sorted(tensors.keys() - expected.keys()):
        return f"{len(unexpected)} tensors are unexpected, first {unexpected[0]}"
    for name, tensor in sorted(tensors.items()):
        if tensor.shape != expected[name].shape:
            return f"{name} has shape {list(tensor.shape)}, the network needs {list(expected[name].shape)}"
        if tensor.is_floating_point() != expected[name].is_floating_point():
            return f"{name} is {tensor.dtype}, the network needs {expected[name].dtype}"
    if bad := _first_not_finite(tensors):
        return f"{bad} is not finite"
    return None


def _first_not_finite(tensors: dict[str, Tensor]) -> str | None:
    return next((name for name, tensor in sorted(tensors.items()) if not tensor.isfinite().all()), None)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
