"""FID's Inception network, read in two ways: as published, and as CellGAN's code feeds it.

The network is torch-fidelity's, whose forward pass follows TensorFlow's; its weights come from a pinned file.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_store.errors import WeightsCorruptedError
from model_store.quality.extractors import ExtractorUnavailableError, ImageExtractor
from model_store.report import (
    CELLGAN_EXTRACTOR,
    INCEPTION_EXTRACTOR,
    INCEPTION_SHA256_PREFIX,
    FidProtocol,
)
from training.evaluation.pinned_weights import PinnedWeights, VerifiedWeights

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

INPUT_SIZE_PX = 299
CELLGAN_BATCH = 64
"""Source: CellGAN's fid.py draws whole batches of this size, so its count of images is a multiple."""
CELLGAN_MOST_IMAGES = 10_000

INCEPTION_WEIGHTS = PinnedWeights(
    network="inception",
    figure="FID",
    files=("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    url=(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth"
    ),
    sha256_prefix=INCEPTION_SHA256_PREFIX,
    option="--inception-weights",
    otherwise="; or use --extractor effnet-lite0 (not comparable to published FID)",
)

_NAMES: dict[FidProtocol, str] = {"standard": INCEPTION_EXTRACTOR, "cellgan": CELLGAN_EXTRACTOR}
_PREPROCESSING: dict[FidProtocol, str] = {
    "standard": f"tf1-bilinear-{INPUT_SIZE_PX}, (x-128)/128",
    "cellgan": f"bilinear-{INPUT_SIZE_PX}, x/255 without the network's rescale to [-1,1]",
}


def cellgan_image_count(n_real: int) -> int:
    """Generated images of a class that CellGAN's protocol takes for `n_real` real ones; 0 below one batch.

    Source: floor(min(N, 10000) / 64) * 64.
    """
    return min(n_real, CELLGAN_MOST_IMAGES) // CELLGAN_BATCH * CELLGAN_BATCH


def load_inception(weights: VerifiedWeights) -> nn.Sequential:
    """Inception up to its pooled features [N, 2048, 1, 1], batch norms folded, without gradients, on the CPU.

    Raises ExtractorUnavailableError without torch-fidelity, WeightsCorruptedError if the file does not hold
    this network's weights.
    """
    fidelity = import_torch_fidelity(INCEPTION_EXTRACTOR)
    try:
        state = torch.load(weights.path, map_location="cpu", weights_only=True)
        # torch-fidelity unpickles whatever it is given: so it gets tensors that were read safely.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        network = fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer
        )
    except Exception as error:  # unpickling and load_state_dict raise whatever they meet
        reason = f"are not Inception's: {_first_line(error)}"
        raise WeightsCorruptedError(str(weights.path), reason) from error
    _fold_batch_norm(network)
    # Its modules are registered in the order they run; the classifier after the pooling is left out.
    layers = [layer for name, layer in network.named_children() if name != "fc"]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def import_torch_fidelity(extractor: str) -> Any:
    """The package. Raises ExtractorUnavailableError without it."""
    try:
        return importlib.import_module("torch_fidelity")
    except ModuleNotFoundError as error:
        raise ExtractorUnavailableError(extractor, "torch-fidelity", extra="fid") from error


class InceptionExtractor(ImageExtractor):
    """Pooled features of Inception, F = 2048, by one of the two protocols.

    trunk: of `load_inception`; may be shared. sha256: of its weights' file.
    """

    feature_count = 2048

    def __init__(
        self, trunk: nn.Sequential, sha256: str, protocol: FidProtocol, *, device: str | torch.device = "cpu"
    ) -> None:
        self.name = _NAMES[protocol]
        self.sha256 = sha256
        self.preprocessing = _PREPROCESSING[protocol]
        self.protocol = protocol
        self._device = torch.device(device)
        self._trunk: Any = trunk.to(self._device).to(memory_format=torch.channels_last)

    def _embed(self, images: Sequence[ImageArray] | ImageArray) -> FloatArray:
        pixels = torch.from_numpy(np.stack(list(images))).to(self._device).permute(0, 3, 1, 2).float()
        prepared = self._prepare(pixels).contiguous(memory_format=torch.channels_last)  # [N, 3, 299, 299]
        features: Tensor = self._trunk(prepared).flatten(start_dim=1)  # [N, F]
        return np.asarray(features.cpu().numpy(), dtype=np.float32)

    def _prepare(self, pixels: Tensor) -> Tensor:
        """Network input for pixels [N, 3, H, W] in 0..255."""
        side = (INPUT_SIZE_PX, INPUT_SIZE_PX)
        if self.protocol == "cellgan":
            return F.interpolate(pixels / 255, size=side, mode="bilinear", align_corners=False)
        resize = importlib.import_module("torch_fidelity.interpolate_compat_tensorflow")
        resized: Tensor = resize.interpolate_bilinear_2d_like_tensorflow1x(
            pixels, size=side, align_corners=False
        )
        return (resized - 128) / 128


def _fold_batch_norm(network: nn.Module) -> None:
    """Replaces every (convolution, batch norm) pair of the network, in place: the same function, faster."""
    for block in list(network.modules()):
        if isinstance(getattr(block, "conv", None), nn.Conv2d):
            fused = fuse_conv_bn_eval(block.conv, block.bn)  # type: ignore[arg-type,type-var]
            block.conv, block.bn = fused.requires_grad_(False), nn.Identity()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
