"""Where a checkpoint is looked for: in the store that is named, else in those that are here anyway."""

from pathlib import Path
from typing import Final

from model_store.builtin import builtin_store
from model_store.errors import ModelNotFoundError
from model_store.store import ModelStore

LOCAL_STORE: Final = "data/store"
"""Where `masan publish` puts checkpoints, and `masan up` serves them from, unless told otherwise."""


def store_with(reference: str, url: str | None, local: str = LOCAL_STORE) -> ModelStore:
    """The store at `url`; None: the one that ships if it has the checkpoint, else the local one.

    Raises ModelNotFoundError, which lists the checkpoints of both, if neither has it.
    """
    if url:
        return ModelStore(url)
    stores = [builtin_store(), *([ModelStore(local)] if Path(local).is_dir() else [])]
    for store in stores:
        try:
            store.resolve(reference)
        except ModelNotFoundError:
            continue
        return store
    known = dict.fromkeys(name for store in stores for name in store.names())
    raise ModelNotFoundError(reference, tuple(known))
