"""The signing key: made once, for its owner alone; what is no key keeps the service from starting."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from model_store.certificate import parse_public_key
from service.errors import SettingsError
from service.results.signing import SigningKey


def public_key_at(path: Path) -> str:
    return SigningKey(path).public.public_key


def test_key_is_made_for_its_owner_alone_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "signing_key.pem"

    first = public_key_at(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_key_at(path) == first
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    SigningKey(tmp_path / "signing_key.pem")

    assert list(tmp_path.iterdir()) == []


def test_racing_processes_end_up_with_one_key(tmp_path: Path) -> None:
    path = tmp_path / "signing_key.pem"

    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        public_keys = list(pool.map(public_key_at, [path] * 16))

    assert len(set(public_keys)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_public_key_is_shown_in_two_ways(tmp_path: Path) -> None:
    key = SigningKey(tmp_path / "signing_key.pem")

    assert parse_public_key(key.public_pem) == parse_public_key(key.public.public_key)
    assert "PRIVATE" not in key.public_pem


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing_key.pem"
    public_key_at(path)
    path.chmod(mode)

    with pytest.raises(SettingsError, match=f"others may read it.*{mode:04o}.*chmod 600"):
        SigningKey(path).check()


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing_key.pem"
    curve = ec.generate_private_key(ec.SECP256R1())
    encrypted = BestAvailableEncryption(b"password")
    for content in (
        b"",
        b"nonsense",
        curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted),
    ):
        path.touch(mode=0o600)
        path.write_bytes(content)

        with pytest.raises(SettingsError, match="MASAN_SIGNING_KEY_FILE"):
            SigningKey(path).check()


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match=r"MASAN_SIGNING_KEY_FILE.*no key can be made"):
        SigningKey(tmp_path / "file" / "signing_key.pem").check()


def test_service_does_not_start_without_a_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {
        "MASAN_MODEL_STORE_URL": str(tmp_path),
        "MASAN_RESULT_STORE_URL": str(tmp_path),
        "MASAN_SIGNING_KEY_FILE": str(tmp_path / "file" / "signing_key.pem"),
    }

    done = subprocess.run(
        [sys.executable, "-m", "service"], env=os.environ | environment, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "MASAN_SIGNING_KEY_FILE" in done.stderr
