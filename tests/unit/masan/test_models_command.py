"""`masan models promote|rollback` as a person types them: what they say and how they end."""

import subprocess
import sys
from pathlib import Path

import pytest

from model_store.store import ModelStore
from tests.unit.model_store.test_promotion import publish, report


def masan(store: ModelStore, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "masan.cli", "models", *args, "--store", store.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture
def store(model_store: ModelStore) -> ModelStore:
    """`tiny@1` in production, a worse `tiny@2` beside it."""
    publish(model_store, "1", report())
    model_store.promote("tiny", "1")
    publish(model_store, "2", report({"kid": 0.2}, {"scale_bar_ratio": 0.5}))
    return model_store


def test_a_refused_promotion_is_one_line_for_each_reason(store: ModelStore) -> None:
    done = masan(store, "promote", "tiny@2")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "masan: tiny@2 does not become production: pro_b: KID (efficientnet-lite0) is 0.2;"
        " production has 0.1; at most 0.12 is allowed",
        "masan: tiny@2 does not become production: pro_b: scale-bar share is 0.5;"
        " production has 0; at most 0.01 is allowed",
    ]
    assert store.aliases("tiny") == {"production": "1"}


def test_a_forced_promotion_is_shown_and_can_be_rolled_back(store: ModelStore, tmp_path: Path) -> None:
    forced = masan(store, "promote", "tiny@2", "--force", "--reason", "a demonstration")
    listed = subprocess.run(
        [sys.executable, "-m", "masan.cli", "models", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    ).stdout
    back = masan(store, "rollback", "tiny")

    assert (forced.returncode, forced.stdout.splitlines()[-1]) == (0, "tiny@production is 2, was 1")
    assert "tiny@production from 1 to 2, because a demonstration. The gate said: pro_b: KID" in listed
    assert (back.returncode, back.stdout) == (0, "tiny@production is 1, was 2\n")
    assert store.aliases("tiny") == {"production": "1"}


def test_a_checkpoint_s_card_is_a_page(store: ModelStore, tmp_path: Path) -> None:
    show = [sys.executable, "-m", "masan.cli", "models", "show", "tiny@2", "--data-dir", str(tmp_path)]
    card = subprocess.run([*show, "--card"], capture_output=True, text=True, timeout=50, check=True).stdout
    both = subprocess.run(
        [*show, "--card", "--json"], capture_output=True, text=True, timeout=50, check=False
    )

    assert card.startswith("# Model card: tiny@2\n")
    assert "- Burnt-in scale bars, 1% is allowed: pro_b 50.0%." in card
    assert (both.returncode, both.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["promote", "tiny"], "NAME@VERSION"),
        (["promote", "tiny@3"], "tiny@3"),
        (["promote", "tiny@2", "--force"], "--reason"),
        (["promote", "tiny@2", "--force", "--reason", " "], "--reason"),
        (["promote", "tiny@2", "--reason", "why"], "--force"),
        (["promote", "tiny@2", "--alias", "Bad Alias"], "alias 'Bad Alias'"),
        (
            ["rollback", "tiny"],
            "tiny@production named no checkpoint before its last promotion; there is nothing",
        ),
        (["rollback", "nobody"], "nobody"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(store: ModelStore, args: list[str], named: str) -> None:
    done = masan(store, *args)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert named in done.stderr
    assert store.aliases("tiny") == {"production": "1"}
