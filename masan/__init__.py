"""What people touch: the `masan` command, the Python client, and the dataset that torch reads from it.

    from masan import AsyncClient, Client, SyntheticDataset

Each name is loaded when it is first asked for, so that `import masan` is quick and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masan.async_client import AsyncClient
    from masan.client import Client, Job, JobEvent, Shard
    from masan.dataset import SyntheticDataset
    from masan.errors import ApiError, JobFailedError, MasanError

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "Job",
    "JobEvent",
    "JobFailedError",
    "MasanError",
    "Shard",
    "SyntheticDataset",
]

_MODULES = {
    "ApiError": "errors",
    "AsyncClient": "async_client",
    "Client": "client",
    "Job": "job",
    "JobEvent": "job",
    "JobFailedError": "errors",
    "MasanError": "errors",
    "Shard": "job",
    "SyntheticDataset": "dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'masan' has no attribute {name!r}")
    try:
        return getattr(import_module(f"masan.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"masan.{name} needs torch, which is not installed: pip install torch") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
