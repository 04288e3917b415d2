"""`masan keys create|revoke|list` as a person types them."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.access.api_keys import ApiKey, KeyLimits, Scope, create_key
from service.access.key_ring import KeyRing


def masan(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "masan.cli", "keys", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def create(file: Path, key_id: str = "lab", *args: str) -> subprocess.CompletedProcess[str]:
    return masan("create", key_id, "--scope", "generate", *args, "--file", file)


def test_a_key_is_printed_once_and_kept_as_a_hash(file: Path) -> None:
    limits = ("--images-per-day", "1000", "--requests-per-minute", "60", "--max-active-jobs", "4")

    done = create(file, "lab", "--scope", "jobs:read", *limits, "--expires", "90d")

    key = done.stdout.strip()
    assert (done.returncode, len(key), key[:3]) == (0, 46, "mk_")
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["keys.jsonl"]
    found = KeyRing([], file).find(key, time.time())
    assert found is not None
    assert found.key_id == "lab"
    assert found.scopes == frozenset({Scope.GENERATE, Scope.JOBS_READ})
    assert found.limits == KeyLimits(requests_per_minute=60, images_per_day=1000, max_active_jobs=4)
    assert KeyRing([], file).find(key, time.time() + 91 * 86_400) is None


def test_a_revoked_key_stays_listed_and_its_id_can_be_given_again(file: Path) -> None:
    first = create(file).stdout.strip()

    revoked = masan("revoke", "lab", "--file", file)
    second = create(file).stdout.strip()
    listed = json.loads(masan("list", "--json", "--file", file).stdout)["keys"]

    assert (revoked.returncode, revoked.stdout) == (0, "lab is revoked\n")
    ring = KeyRing([], file)
    assert (ring.find(first, time.time()), ring.find(second, time.time()) is None) == (None, False)
    assert [(row["id"], row["state"]) for row in listed] == [("lab", "revoked"), ("lab", "active")]


def test_the_list_shows_limits_and_neither_key_nor_hash(file: Path) -> None:
    key = create(file, "lab", "--images-per-day", "5", "--expires", "2999-01-31").stdout.strip()

    table, document = masan("list", "--file", file), masan("list", "--json", "--file", file)

    row = json.loads(document.stdout)["keys"][0]
    assert (row["images_per_day"], row["expires_at"]) == (5, "2999-01-31T00:00:00Z")
    assert "lab" in table.stdout
    assert "2999-01-31" in table.stdout
    sha256 = json.loads(file.read_text())["sha256"]
    assert all(secret not in done.stdout for secret in (key, sha256) for done in (table, document))


def test_keys_made_at_once_are_all_there(file: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda i: create(file, f"lab{i}").stdout.strip(), range(4)))

    ring = KeyRing([], file)
    assert [ring.find(key, time.time()) is None for key in keys] == [False] * 4


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["create", "lab", "--scope", "everything"], "--scope 'everything'"),
        (["create", "lab"], "--scope"),
        (["create", "a lab", "--scope", "admin"], "ID 'a lab'"),
        (["create", "taken", "--scope", "admin"], "id 'taken' has an active key"),
        (["create", "lab", "--scope", "admin", "--images-per-day", "0"], "--images-per-day"),
        (["create", "lab", "--scope", "admin", "--expires", "soon"], "--expires 'soon'"),
        (["create", "lab", "--scope", "admin", "--expires", "2020-01-01"], "is past"),
        (["create", "lab", "--scope", "admin", "--expires", "2999-01-01T10:00"], "with its zone"),
        (["revoke", "nobody"], "there are: taken"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(file: Path, args: list[str], named: str) -> None:
    create_key(file, lambda sha256: ApiKey(id="taken", sha256=sha256, scopes=frozenset()), time.time())
    before = file.read_text()

    done = masan(*args, "--file", file)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert named in done.stderr
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("text", "named"), [("{}\n", "line 1"), (None, "cannot be read"), ("", "cannot be opened")]
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, named: str) -> None:
    file = tmp_path / "keys.jsonl"
    if text:
        file.write_text(text)
    where = tmp_path / "absent" / "keys.jsonl" if text == "" else file
    command = ["create", "lab", "--scope", "admin"] if text == "" else ["list"]

    done = masan(*command, "--file", where)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert named in done.stderr
    assert str(where) in done.stderr
