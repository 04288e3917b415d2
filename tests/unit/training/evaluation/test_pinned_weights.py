"""Published weights are found where they may lie, recognised by their sha256, and explained where absent."""

import hashlib
from pathlib import Path

import pytest

from model_store.errors import WeightsCorruptedError
from training.errors import WeightsAbsentError
from training.evaluation.clip import CLIP_WEIGHTS
from training.evaluation.inception import INCEPTION_WEIGHTS
from training.evaluation.pinned_weights import PinnedWeights

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def published(tmp_path: Path) -> PinnedWeights:
    """A file that can be fetched, also without a net."""
    source = tmp_path / "published.pth"
    source.write_bytes(CONTENT)
    return PinnedWeights(
        network="some",
        figure="FID",
        files=("some.pth", "other-name.pth"),
        url=source.as_uri(),
        sha256_prefix=SHA256[:8],
        option="--some-weights",
    )


def test_the_named_file_comes_first(published: PinnedWeights, torch_home: Path, tmp_path: Path) -> None:
    torch_home.mkdir(parents=True)
    (torch_home / "some.pth").write_bytes(CONTENT)
    named = tmp_path / "named.pth"
    named.write_bytes(CONTENT)

    found = published.find(named)

    assert (found.path, found.sha256) == (named, SHA256)


@pytest.mark.parametrize("name", ["some.pth", "other-name.pth"])
def test_the_cache_is_next_under_either_name(published: PinnedWeights, torch_home: Path, name: str) -> None:
    torch_home.mkdir(parents=True)
    (torch_home / name).write_bytes(CONTENT)

    assert published.find().path == torch_home / name


def test_a_download_goes_into_the_cache_and_only_if_wanted(
    published: PinnedWeights, torch_home: Path
) -> None:
    with pytest.raises(WeightsAbsentError):
        published.find()
    assert not torch_home.exists()

    found = published.find(download=True)

    assert found.path == published.cache_path == torch_home / "some.pth"
    assert published.find().path == found.path


def test_other_bytes_are_refused_wherever_they_lie(
    published: PinnedWeights, torch_home: Path, tmp_path: Path
) -> None:
    torch_home.mkdir(parents=True)
    (torch_home / "some.pth").write_bytes(b"other")

    with pytest.raises(WeightsCorruptedError, match=f"it must start {SHA256[:8]}"):
        published.find()
    with pytest.raises(WeightsCorruptedError, match=r"absent\.pth: cannot be read: No such file"):
        published.find(tmp_path / "absent.pth")


def test_a_failed_download_says_how_to_get_the_file(published: PinnedWeights, tmp_path: Path) -> None:
    (tmp_path / "published.pth").unlink()

    with pytest.raises(WeightsAbsentError) as caught:
        published.find(download=True)

    assert str(caught.value) == published.how_to_get()
    assert "\n" not in str(caught.value)


def test_absent_inception_is_explained_in_full(torch_home: Path) -> None:
    file = "weights-inception-2015-12-05-6726825d.pth"

    with pytest.raises(WeightsAbsentError) as caught:
        INCEPTION_WEIGHTS.find()

    assert str(caught.value) == (
        f"FID needs {file} (sha256 starts 6726825d) from"
        f" https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{file};"
        f" put it at {torch_home / file} or pass --inception-weights;"
        " or use --extractor effnet-lite0 (not comparable to published FID)"
    )


def test_absent_clip_is_explained(torch_home: Path) -> None:
    assert CLIP_WEIGHTS.how_to_get().startswith("CMMD needs clip-vit-l-14-336px-3035c92b")
    assert CLIP_WEIGHTS.how_to_get().endswith("or pass --clip-weights")
