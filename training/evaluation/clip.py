"""CLIP's image embeddings for CMMD: ViT-L/14 at 336 px, from a pinned file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.errors import WeightsCorruptedError
from model_store.quality.extractors import ImageExtractor, resized
from training.evaluation.inception import import_torch_fidelity
from training.evaluation.pinned_weights import PinnedWeights, VerifiedWeights

ImageArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

CLIP_SHA256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
CLIP_WEIGHTS = PinnedWeights(
    network="clip",
    figure="CMMD",
    files=(f"clip-vit-l-14-336px-{CLIP_SHA256}.pt", "ViT-L-14-336px.pt"),
    url=f"https://openaipublic.azureedge.net/clip/models/{CLIP_SHA256}/ViT-L-14-336px.pt",
    sha256_prefix=CLIP_SHA256,
    option="--clip-weights",
)

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SD = (0.26862954, 0.26130258, 0.27577711)
"""Source: CLIP's own preprocessing."""


class ClipExtractor(ImageExtractor):
    """Image embeddings as CLIP's visual tower projects them, F = 768; not of unit length.

    Raises ExtractorUnavailableError without torch-fidelity, WeightsCorruptedError if the file does not hold
    a CLIP model.
    """

    name = "clip-vit-l-14-336px"

    def __init__(self, weights: VerifiedWeights, *, device: str | torch.device = "cpu") -> None:
        fidelity = import_torch_fidelity(self.name)
        try:
            with warnings.catch_warnings():
                # CLIP is published as a TorchScript archive, which torch still reads but no longer likes.
                warnings.simplefilter("ignore", FutureWarning)
                loaded = fidelity.FeatureExtractorCLIP(
                    self.name, ["clip"], feature_extractor_weights_path=str(weights.path)
                )
        except Exception as error:  # the archive's reader raises whatever it meets
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise WeightsCorruptedError(str(weights.path), f"are not CLIP's: {reason}") from error
        self._device = torch.device(device)
        self._network: Any = loaded.model.visual.to(self._device)
        self._side_px = int(loaded.resolution)
        self.sha256 = weights.sha256
        self.preprocessing = f"pil-bicubic-{self._side_px}, clip mean and sd"
        self.feature_count = int(self._network.output_dim)

    def _embed(self, images: Sequence[ImageArray] | ImageArray) -> FloatArray:
        batch = np.stack([resized(image, self._side_px) for image in images])
        pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).float() / 255
        mean, sd = (torch.tensor(values, device=self._device).reshape(1, 3, 1, 1) for values in (_MEAN, _SD))
        embeddings: Tensor = self._network((pixels - mean) / sd)  # [N, F]
        return np.asarray(embeddings.float().cpu().numpy(), dtype=np.float32)
