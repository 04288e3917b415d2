import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from model_store.errors import (
    ManifestInvalidError,
    ModelAlreadyPublishedError,
    ModelNotFoundError,
    ModelStoreError,
    NoEarlierVersionError,
    WeightsCorruptedError,
)
from model_store.manifest import Manifest
from model_store.store import AliasMovedError, ModelStore
from tests.checkpoints import describe, tiny_config

WEIGHTS = "weights.safetensors"


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModelStore]:
    yield ModelStore(str(tmp_path / "store") if request.param == "local" else "memory://store-test")
    memory = fsspec.filesystem("memory")
    if memory.exists("/store-test"):
        memory.rm("/store-test", recursive=True)


def _manifest(version: str, weights: bytes = b"weights", name: str = "tiny") -> Manifest:
    return describe(name, version, weights, tiny_config())


def _publish(store: ModelStore, *versions: str, name: str = "tiny") -> None:
    for version in versions:
        weights = f"{name} {version}".encode()
        store.publish(_manifest(version, weights, name), {WEIGHTS: weights})


def test_a_published_checkpoint_is_read_back(store: ModelStore) -> None:
    published = store.publish(_manifest("1"), {WEIGHTS: b"weights"})

    found = store.resolve("tiny@1")

    assert found == published
    assert found.reference == "tiny@1"
    assert store.read_file(found, WEIGHTS) == b"weights"


def test_names_and_versions_are_listed(store: ModelStore) -> None:
    _publish(store, "10", "2", "1.5")
    _publish(store, "1", name="other")

    assert store.names() == ("other", "tiny")
    assert store.versions("tiny") == ("1.5", "2", "10")
    assert store.versions("nothing") == ()
    assert [checkpoint.reference for checkpoint in store.checkpoints()] == [
        "other@1",
        "tiny@1.5",
        "tiny@2",
        "tiny@10",
    ]


def test_an_empty_store_says_so(store: ModelStore) -> None:
    assert store.names() == ()
    with pytest.raises(ModelNotFoundError, match="the store is empty"):
        store.resolve("tiny")


def test_a_plain_name_is_production_else_the_newest(store: ModelStore) -> None:
    _publish(store, "1", "2", "3")
    assert store.resolve("tiny").manifest.version == "3"

    store.promote("tiny", "1")

    assert store.resolve("tiny").manifest.version == "1"
    assert store.resolve("tiny@production").manifest.version == "1"
    assert store.resolve("tiny@2").manifest.version == "2"


@pytest.mark.parametrize(
    "reference", ["tiny@9", "tiny@staging", "other", "", "@", "../tiny", "tiny@../1", "TINY"]
)
def test_an_unknown_reference_names_what_there_is(store: ModelStore, reference: str) -> None:
    _publish(store, "1")

    with pytest.raises(ModelNotFoundError, match="tiny"):
        store.resolve(reference)


def test_a_version_is_never_overwritten(store: ModelStore) -> None:
    store.publish(_manifest("1"), {WEIGHTS: b"weights"})

    with pytest.raises(ModelAlreadyPublishedError, match="tiny@1"):
        store.publish(_manifest("1", b"other"), {WEIGHTS: b"other"})

    assert store.read_file(store.resolve("tiny@1"), WEIGHTS) == b"weights"


def test_one_of_two_racing_publishers_wins(tmp_path: Path) -> None:
    stores = [ModelStore(str(tmp_path)) for _ in range(4)]
    gate = threading.Barrier(len(stores))
    refused: list[int] = []

    def publish(number: int) -> None:
        weights = b"%d" % number
        gate.wait()
        try:
            stores[number].publish(_manifest("1", weights), {WEIGHTS: weights})
        except ModelAlreadyPublishedError:
            refused.append(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = set(range(len(stores))) - set(refused)
    assert stores[0].read_file(stores[0].resolve("tiny@1"), WEIGHTS) == b"%d" % winner


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "was given"),
        ({WEIGHTS: b"weights", "more.json": b""}, "more.json"),
        ({WEIGHTS: b"weight"}, "6 bytes"),
        ({WEIGHTS: b"Weights"}, "sha256"),
    ],
)
def test_files_must_be_those_of_the_manifest(store: ModelStore, files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(ManifestInvalidError, match=reason):
        store.publish(_manifest("1"), files)

    assert store.names() == ()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"Weights", "sha256"), (b"weigh", "5 bytes"), (None, "missing")]
)
def test_every_read_is_verified(tmp_path: Path, content: bytes | None, reason: str) -> None:
    store = ModelStore(str(tmp_path))
    checkpoint = store.publish(_manifest("1"), {WEIGHTS: b"weights"})
    path = tmp_path / checkpoint.folder / WEIGHTS
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(WeightsCorruptedError, match=reason):
        store.read_file(checkpoint, WEIGHTS)


def test_only_files_of_the_manifest_are_read(store: ModelStore) -> None:
    checkpoint = store.publish(_manifest("1"), {WEIGHTS: b"weights"})

    with pytest.raises(ModelNotFoundError):
        store.read_file(checkpoint, "../../aliases.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSON"),
        ("{}", "name: Field required"),
        (_manifest("2").model_dump_json(), "describes tiny@2, not tiny@1"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path: Path, content: str, reason: str) -> None:
    store = ModelStore(str(tmp_path))
    checkpoint = store.publish(_manifest("1"), {WEIGHTS: b"weights"})
    (tmp_path / checkpoint.folder / "manifest.json").write_text(content)

    with pytest.raises(ManifestInvalidError, match=reason):
        store.resolve("tiny@1")


def test_a_folder_without_manifest_is_no_version(tmp_path: Path) -> None:
    (tmp_path / "tiny/versions/1").mkdir(parents=True)

    assert ModelStore(str(tmp_path)).names() == ()


def test_rollback_goes_back_step_by_step(store: ModelStore) -> None:
    _publish(store, "1", "2", "3")
    for version in ("1", "2", "3", "3"):
        store.promote("tiny", version)

    assert [store.rollback("tiny"), store.rollback("tiny")] == ["2", "1"]
    assert store.aliases("tiny") == {"production": "1"}
    with pytest.raises(ModelNotFoundError, match="tiny@production named no checkpoint before its last"):
        store.rollback("tiny")


def test_rollback_to_a_version_that_was_removed_names_it(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    _publish(store, "1", "2")
    for version in ("1", "2"):
        store.promote("tiny", version)
    shutil.rmtree(tmp_path / "tiny/versions/1")

    with pytest.raises(NoEarlierVersionError, match="named 1, which is not in the store any more"):
        store.rollback("tiny")
    assert store.aliases("tiny") == {"production": "2"}


def test_a_promotion_after_a_rollback_can_be_rolled_back(store: ModelStore) -> None:
    _publish(store, "1", "2", "3")
    for version in ("1", "2"):
        store.promote("tiny", version)
    store.rollback("tiny")
    store.promote("tiny", "3")

    assert store.rollback("tiny") == "1"


def test_aliases_are_independent_and_remembered(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    _publish(store, "1", "2")
    store.promote("tiny", "1")
    store.promote("tiny", "2", alias="staging")

    assert store.aliases("tiny") == {"production": "1", "staging": "2"}
    assert store.resolve("tiny@staging").manifest.version == "2"
    history = json.loads((tmp_path / "tiny/aliases.json").read_text())["history"]
    assert [(entry["alias"], entry["version"], entry["previous"]) for entry in history] == [
        ("production", "1", None),
        ("staging", "2", None),
    ]


def test_racing_promotions_are_all_remembered(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    _publish(store, "1")
    threads = [
        threading.Thread(target=ModelStore(str(tmp_path)).promote, args=("tiny", "1", f"alias-{number}"))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store.aliases("tiny")) == 12


def test_what_cannot_be_promoted_is_refused(store: ModelStore) -> None:
    _publish(store, "1")

    with pytest.raises(ModelNotFoundError, match="tiny@2"):
        store.promote("tiny", "2")
    with pytest.raises(ValueError, match="alias '1'"):
        store.promote("tiny", "1", alias="1")
    with pytest.raises(ValueError, match="alias 'Bad Alias'"):
        store.promote("tiny", "1", alias="Bad Alias")
    with pytest.raises(ModelNotFoundError):
        store.rollback("nothing")
    assert store.aliases("tiny") == {}


def test_a_damaged_alias_file_is_an_error_of_the_store(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    _publish(store, "1")
    (tmp_path / "tiny/aliases.json").write_text('{"aliases": 3}')

    with pytest.raises(ModelStoreError, match=r"aliases\.json"):
        store.resolve("tiny")


def test_an_attached_report_is_read_back_and_the_manifest_stays(store: ModelStore) -> None:
    _publish(store, "1")
    checkpoint = store.resolve("tiny@1")

    first, second = (store.attach_report(checkpoint, content) for content in (b"one", b"two"))

    assert store.attached_reports(checkpoint) == (second, first)
    assert store.read_attached(checkpoint, second) == b"two"
    assert store.resolve("tiny@1") == checkpoint


def test_a_report_attached_again_is_the_newest_once(store: ModelStore) -> None:
    _publish(store, "1")
    checkpoint = store.resolve("tiny@1")

    for content in (b"one", b"two", b"one"):
        store.attach_report(checkpoint, content)

    contents = [store.read_attached(checkpoint, entry) for entry in store.attached_reports(checkpoint)]
    assert contents == [b"one", b"two"]


def test_an_altered_attached_report_is_refused(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    _publish(store, "1")
    checkpoint = store.resolve("tiny@1")
    entry = store.attach_report(checkpoint, b"one")
    (tmp_path / checkpoint.folder / "reports" / entry.path).write_bytes(b"two")

    with pytest.raises(WeightsCorruptedError, match="sha256"):
        store.read_attached(checkpoint, entry)


def test_racing_reports_are_all_attached(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    _publish(store, "1")
    checkpoint = store.resolve("tiny@1")
    threads = [
        threading.Thread(target=ModelStore(str(tmp_path)).attach_report, args=(checkpoint, b"%d" % number))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store.attached_reports(checkpoint)) == 12


def test_an_alias_that_moved_meanwhile_is_not_overwritten(store: ModelStore) -> None:
    _publish(store, "1", "2", "3")
    store.promote("tiny", "1", expected=None)
    store.promote("tiny", "2", expected="1")

    with pytest.raises(AliasMovedError, match="it names 2"):
        store.promote("tiny", "3", expected="1")
    assert store.aliases("tiny") == {"production": "2"}


def test_an_alias_file_of_before_overrides_were_recorded_is_read(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    _publish(store, "1")
    change = {"action": "promote", "alias": "production", "version": "1", "previous": None}
    old = {"aliases": {"production": "1"}, "history": [change | {"at": "2026-01-01T00:00:00Z"}]}
    (tmp_path / "tiny/aliases.json").write_text(json.dumps(old))

    (read,) = store.history("tiny")

    assert (read.version, read.overridden, read.reason) == ("1", (), "")
