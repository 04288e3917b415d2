"""The published networks whose weights must be had from elsewhere: Inception for FID, CLIP for CMMD."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from model_store.quality.extractors import ExtractorUnavailableError
from training.errors import WeightsAbsentError
from training.evaluation.clip import CLIP_WEIGHTS, ClipExtractor
from training.evaluation.inception import (
    INCEPTION_WEIGHTS,
    InceptionExtractor,
    import_torch_fidelity,
    load_inception,
)
from training.evaluation.pinned_weights import PinnedWeights, VerifiedWeights

NOT_ASKED_FOR = "not asked for"
NO_TORCH_FIDELITY = "torch-fidelity is not installed: pip install 'masan[fid]'"


class FidChoice(StrEnum):
    """Whether a report needs a FID. EfficientNet's figures are in every report."""

    AUTO = "auto"
    """Where Inception's weights are here."""
    INCEPTION = "inception"
    """It must be there."""
    EFFNET_LITE0 = "effnet-lite0"
    """None: only figures that compare with no published FID."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which published networks are wanted, and where their weights may come from.

    download: fetch Inception's if they are not here; CLIP's, ten times as large, never are.
    """

    fid: FidChoice = FidChoice.AUTO
    inception_weights: Path | None = None
    clip_weights: Path | None = None
    download: bool = False


@dataclass(frozen=True, kw_only=True)
class PublishedNetworks:
    """Those that are here; a reason for each that is not."""

    inception: tuple[InceptionExtractor, ...] = ()
    fid_reason: str | None = NOT_ASKED_FOR
    clip: ClipExtractor | None = None
    cmmd_reason: str | None = NOT_ASKED_FOR


def find_networks(
    options: NetworkOptions,
    *,
    device: str | torch.device = "cpu",
    inception: PinnedWeights = INCEPTION_WEIGHTS,
    clip: PinnedWeights = CLIP_WEIGHTS,
) -> PublishedNetworks:
    """Load the networks whose weights are named, cached or, with `options.download`, to be fetched.

    inception, clip: which files are the right ones.
    Raises WeightsAbsentError and ExtractorUnavailableError where what was asked for by name is not there,
    WeightsCorruptedError for a file that is not the published one.
    """
    extractors, fid_reason = _find_inception(options, inception, device)
    embedder, cmmd_reason = _find_clip(options, clip, device)
    return PublishedNetworks(
        inception=extractors, fid_reason=fid_reason, clip=embedder, cmmd_reason=cmmd_reason
    )


def _find_inception(
    options: NetworkOptions, pinned: PinnedWeights, device: str | torch.device
) -> tuple[tuple[InceptionExtractor, ...], str | None]:
    if options.fid is FidChoice.EFFNET_LITE0:
        return (), NOT_ASKED_FOR
    is_required = (
        options.fid is FidChoice.INCEPTION or options.inception_weights is not None or options.download
    )
    weights, reason = _find(pinned, options.inception_weights, options.download, is_required)
    if weights is None:
        return (), reason
    trunk = load_inception(weights)
    return (
        InceptionExtractor(trunk, weights.sha256, "standard", device=device),
        InceptionExtractor(trunk, weights.sha256, "cellgan", device=device),
    ), None


def _find_clip(
    options: NetworkOptions, pinned: PinnedWeights, device: str | torch.device
) -> tuple[ClipExtractor | None, str | None]:
    weights, reason = _find(pinned, options.clip_weights, False, options.clip_weights is not None)
    return (None, reason) if weights is None else (ClipExtractor(weights, device=device), None)


def _find(
    pinned: PinnedWeights, given: Path | None, download: bool, is_required: bool
) -> tuple[VerifiedWeights | None, str | None]:
    """The file, or why it is not used."""
    try:
        weights = pinned.find(given, download=download)
        import_torch_fidelity(pinned.figure)
    except WeightsAbsentError:
        if is_required:
            raise
        return None, f"{pinned.network} weights absent"
    except ExtractorUnavailableError:
        if is_required:
            raise
        return None, NO_TORCH_FIDELITY
    return weights, None
