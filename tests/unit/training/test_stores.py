"""Where a checkpoint is found that nobody has said the store of."""

from pathlib import Path

import pytest

from model_store.builtin import builtin_store
from model_store.errors import ModelNotFoundError
from tests.e2e.tiny_checkpoint import publish_tiny
from training.stores import store_with

pytestmark = pytest.mark.skipif(not builtin_store().names(), reason="no checkpoint ships")


def test_what_ships_is_found_where_it_ships(tmp_path: Path) -> None:
    publish_tiny(tmp_path, name="b-all")

    assert store_with("b-all", None, str(tmp_path)).url == builtin_store().url


@pytest.mark.parametrize("reference", ["tiny", "tiny@1", "tiny@production"])
def test_what_does_not_ship_is_found_in_the_local_store(tmp_path: Path, reference: str) -> None:
    publish_tiny(tmp_path)

    assert store_with(reference, None, str(tmp_path)).resolve(reference).reference == "tiny@1"


def test_a_named_store_alone_is_looked_into(tmp_path: Path) -> None:
    publish_tiny(tmp_path / "local")

    named = store_with("tiny", str(tmp_path / "named"), str(tmp_path / "local"))

    assert named.names() == ()


def test_who_finds_it_nowhere_learns_what_there_is(tmp_path: Path) -> None:
    publish_tiny(tmp_path)

    with pytest.raises(ModelNotFoundError, match="no checkpoint 'nobody'; there is b-all, tiny"):
        store_with("nobody", None, str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"there is b-all$"):
        store_with("nobody", None, str(tmp_path / "absent"))
