"""A keys file for tests of access."""

import json
from pathlib import Path

from service.access.api_keys import hash_key

ADMIN, OTHER, LIMITED = "mk_admin-0123456789", "mk_other-0123456789", "mk_limited-01234567"
_SCOPES = {
    ADMIN: ["admin"],
    OTHER: ["generate", "jobs:read", "models:promote"],
    LIMITED: ["generate", "jobs:read", "jobs:write"],
}


def keys_file(folder: Path, **limits: int) -> Path:
    """Three keys; `limits` are those of LIMITED."""
    path = folder / "keys.jsonl"
    rows: list[dict[str, object]] = [
        {"id": key[3:-11], "sha256": hash_key(key), "scopes": scopes} for key, scopes in _SCOPES.items()
    ]
    rows[-1] |= limits
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def auth(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
