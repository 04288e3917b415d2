import pytest

from model_store.builtin import builtin_store, import_builtin
from model_store.errors import ModelNotFoundError
from model_store.store import ModelStore
from tests.checkpoints import publish_tiny


@pytest.fixture
def source() -> ModelStore:
    """Stands in for the package's data: two versions, as after an upgrade."""
    store = ModelStore("memory://builtin-test")
    if not store.names():
        publish_tiny(store, version="1")
        publish_tiny(store, version="2", seed=1)
    return store


def test_the_newest_version_is_published_and_promoted(model_store: ModelStore, source: ModelStore) -> None:
    checkpoint = import_builtin(model_store, source)

    assert checkpoint.reference == "tiny@2"
    assert model_store.versions("tiny") == ("2",)
    assert model_store.resolve("tiny@production") == checkpoint
    assert model_store.read_file(checkpoint, "weights.safetensors")


def test_importing_again_changes_nothing(model_store: ModelStore, source: ModelStore) -> None:
    assert import_builtin(model_store, source) == import_builtin(model_store, source)


def test_a_production_alias_is_left_alone(model_store: ModelStore, source: ModelStore) -> None:
    publish_tiny(model_store, version="0")
    model_store.promote("tiny", "0")

    import_builtin(model_store, source)

    assert model_store.versions("tiny") == ("0", "2")
    assert model_store.aliases("tiny") == {"production": "0"}


def test_a_package_without_data_says_so(model_store: ModelStore) -> None:
    with pytest.raises(ModelNotFoundError, match="built-in"):
        import_builtin(model_store, ModelStore("memory://nothing-here"))


def test_what_ships_can_be_imported_and_drawn_from(model_store: ModelStore) -> None:
    import torch

    from model_store.weights import load_generator

    if not builtin_store().names():
        pytest.skip("this checkout ships no built-in checkpoint")
    checkpoint = import_builtin(model_store)

    generator = load_generator(model_store, checkpoint, torch.device("cpu"))

    assert generator.class_count == len(checkpoint.manifest.classes)
    assert checkpoint.manifest.weights.size_bytes < 16 * 2**20
