"""Published networks are used where they are, demanded where asked for, and missed with a reason."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.errors import WeightsCorruptedError
from model_store.quality.extractors import ExtractorUnavailableError
from training.errors import WeightsAbsentError
from training.evaluation.clip import CLIP_WEIGHTS
from training.evaluation.inception import INCEPTION_WEIGHTS
from training.evaluation.networks import FidChoice, NetworkOptions, find_networks
from training.evaluation.pinned_weights import PinnedWeights


def pinned(published: PinnedWeights, path: Path) -> PinnedWeights:
    """The same entry for another file."""
    return replace(published, sha256_prefix=hashlib.sha256(path.read_bytes()).hexdigest()[:8])


def test_nothing_is_fetched_unless_asked_and_the_reasons_name_no_path(tmp_path: Path) -> None:
    networks = find_networks(NetworkOptions())

    assert (networks.inception, networks.clip) == ((), None)
    assert networks.fid_reason == "inception weights absent"
    assert networks.cmmd_reason == "clip weights absent"
    assert not (tmp_path / "torch").exists()


def test_a_fid_that_was_asked_for_is_missed_aloud() -> None:
    with pytest.raises(WeightsAbsentError, match=r"^FID needs weights-inception-2015-12-05-6726825d\.pth"):
        find_networks(NetworkOptions(fid=FidChoice.INCEPTION))


def test_a_named_file_must_be_the_published_one(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(b"other")

    with pytest.raises(WeightsCorruptedError, match="it must start 6726825d"):
        find_networks(NetworkOptions(inception_weights=file))
    with pytest.raises(WeightsCorruptedError, match="it must start 3035c92b"):
        find_networks(NetworkOptions(clip_weights=file))


def test_no_fid_is_looked_for_where_none_is_wanted(tmp_path: Path) -> None:
    absent = tmp_path / "absent.pth"

    networks = find_networks(NetworkOptions(fid=FidChoice.EFFNET_LITE0, inception_weights=absent))

    assert networks.fid_reason == "not asked for"


def test_named_files_give_both_protocols_and_clip(inception_file: Path, clip_file: Path) -> None:
    networks = find_networks(
        NetworkOptions(inception_weights=inception_file, clip_weights=clip_file),
        inception=pinned(INCEPTION_WEIGHTS, inception_file),
        clip=pinned(CLIP_WEIGHTS, clip_file),
    )

    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    assert [extractor.protocol for extractor in networks.inception] == ["standard", "cellgan"]
    assert {extractor.sha256 for extractor in networks.inception} == {sha256}
    assert networks.clip is not None
    assert (networks.fid_reason, networks.cmmd_reason) == (None, None)


def test_weights_without_torch_fidelity_are_a_reason_unless_named(
    inception_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = pinned(INCEPTION_WEIGHTS, inception_file)
    entry.cache_path.parent.mkdir(parents=True)
    entry.cache_path.symlink_to(inception_file)
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)

    networks = find_networks(NetworkOptions(), inception=entry)

    assert networks.fid_reason == "torch-fidelity is not installed: pip install 'masan[fid]'"
    with pytest.raises(ExtractorUnavailableError, match="torch-fidelity"):
        find_networks(NetworkOptions(fid=FidChoice.INCEPTION), inception=entry)
