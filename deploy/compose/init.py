"""What has to be there before service and worker start: an API key, a signing key and a checkpoint.

Runs to its end at each start and changes nothing that is there already. The key itself is printed once, when
it is made; the file keeps its sha256 alone. Where no file of keys is named, as where they come from a secret,
it sees to the checkpoint alone.
"""

import os
import sys
import time
from pathlib import Path

from model_store.builtin import import_builtin
from model_store.errors import ModelStoreError
from model_store.store import ModelStore
from service.access.api_keys import ApiKey, KeysFileError, Scope, create_key
from service.errors import SettingsError
from service.results.signing import SigningKey

FIRST_KEY_ID = "first-start"


def make_first_key(keys_file: Path) -> str | None:
    """Write a new API key's hash to `keys_file`, readable by its owner alone, and return the key.

    None if the file exists: its keys stay as they are.
    """
    if keys_file.exists():
        return None
    return create_key(
        keys_file,
        lambda sha256: ApiKey(id=FIRST_KEY_ID, sha256=sha256, scopes=frozenset({Scope.ADMIN})),
        time.time(),
    )


def main() -> None:
    """Read the places from the environment, as the service does."""
    checkpoint = import_builtin(ModelStore(os.environ["MASAN_MODEL_STORE_URL"]))
    print(f"checkpoint {checkpoint.manifest.reference} is in the store")
    if "MASAN_API_KEYS_FILE" not in os.environ:
        return
    key = make_first_key(Path(os.environ["MASAN_API_KEYS_FILE"]))
    if key is None:
        print("API keys are as they were")
    else:
        print(f"API key, shown this once: {key}\nSend it as `Authorization: Bearer {key}`.")
    signing_key = SigningKey(Path(os.environ["MASAN_SIGNING_KEY_FILE"])).public
    print(f"certificates are signed with key {signing_key.id}, public key {signing_key.public_key}")


if __name__ == "__main__":
    try:
        main()
    except (ModelStoreError, KeysFileError, SettingsError, OSError) as error:
        sys.exit(f"init: {error}")
