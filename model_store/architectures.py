"""What may be asked of an architecture beside a class and a count: read by the service, hence torch-free."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

SamplingParameter = Literal["truncation"]

SAMPLING_PARAMETERS: Final[Mapping[str, frozenset[SamplingParameter]]] = MappingProxyType(
    {
        "masan": frozenset({"truncation"}),
        "cellgan": frozenset({"truncation"}),
        "experts": frozenset({"truncation"}),
        # A diffusion model's latent is the noise it removes: scaled noise is noise it never learnt to remove.
        # What trades diversity for typicality there is guidance, which is part of the checkpoint's config.
        "ldm": frozenset(),
    }
)
"""Architecture -> the sampling parameters it knows, by the names of the HTTP interface."""


def accepts(architecture: str, parameter: SamplingParameter) -> bool:
    """Whether an architecture knows a parameter. An unknown architecture is left to the worker to refuse."""
    return parameter in SAMPLING_PARAMETERS.get(architecture, frozenset({parameter}))
