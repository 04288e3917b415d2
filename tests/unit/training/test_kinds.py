"""Kinds within classes: found, kept, told to the generator, and published."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from model_store.generators.masan import MasanGenerator
from model_store.store import ModelStore
from tests.smears import make_smear_dataset
from training.config import TrainConfig
from training.errors import ConfigInvalidError, RunInvalidError
from training.export import Publication, publish_run, trained_by_run
from training.kinds import Kinds, counts_per_class, find_kinds, restore_kinds
from training.loop import Trainer
from training.origin import load_origin
from training.plan import Wish, plan
from training.presets import preset
from training.run_dir import RunDir
from training.runner import RunRequest, kinds_of_run, load_split, run
from training.starting import CLASS_INPUT, KIND_INPUT, grow_from, start_from

SIZES = ((60, 20), (50,), (30, 40, 50))
SETTINGS = ("discriminator.kind=pixel", "generator.latent_dim=8", "run.resolution=16")


def blobs() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Features of three classes of 2, 1 and 3 kinds far apart, their classes and true kinds, shuffled."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 8)) * 10
    kinds = np.repeat(np.arange(6), [size for of_class in SIZES for size in of_class])
    labels = np.array([0, 0, 1, 2, 2, 2])[kinds]
    features = centres[kinds] + random.normal(size=(len(kinds), 8))
    order = random.permutation(len(kinds))
    return features[order].astype(np.float32), labels[order], kinds[order]


def agree(found: Kinds, true: npt.NDArray[np.int64]) -> bool:
    """Whether both part the images alike, whatever the kinds' order."""
    return len(set(zip(found.labels.tolist(), true.tolist(), strict=True))) == len(set(true.tolist()))


def test_kinds_are_those_that_lie_apart_in_the_order_of_classes() -> None:
    features, labels, true = blobs()

    found = find_kinds(features, labels, (2, 1, 3))

    assert agree(found, true)
    assert found.counts == (2, 1, 3)
    assert np.array_equal(np.array([0, 0, 1, 2, 2, 2])[found.labels], labels)
    for of_class, sizes in zip(found.shares, SIZES, strict=True):
        assert sorted(of_class) == pytest.approx(sorted(size / sum(sizes) for size in sizes))


def test_kinds_are_the_same_each_time_and_in_the_order_of_centres_that_are_given() -> None:
    features, labels, _ = blobs()
    first = find_kinds(features, labels, (2, 1, 3))
    given = first.centres[[1, 0, 2, 5, 3, 4]] + 0.5

    turned = find_kinds(features, labels, (2, 1, 3), given)

    assert np.array_equal(find_kinds(features, labels, (2, 1, 3)).labels, first.labels)
    assert np.array_equal(turned.labels, np.array([1, 0, 2, 4, 5, 3])[first.labels])


def test_kept_kinds_are_the_same_kinds() -> None:
    features, labels, _ = blobs()
    first = find_kinds(features, labels, (2, 1, 3))

    kept = restore_kinds(features, labels, first.state())

    assert np.array_equal(kept.labels, first.labels)
    assert kept.shares == first.shares


@pytest.mark.parametrize("counts", [(9, 1, 3), (2, 50, 3)])
def test_kinds_of_a_few_images_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ConfigInvalidError, match=r"data.kinds \d+: a kind of class \d has \d+ images; fewer"):
        find_kinds(*blobs()[:2], counts)


def test_one_number_is_for_all_classes() -> None:
    assert counts_per_class((3,), 4) == (3, 3, 3, 3)
    assert counts_per_class((1, 2), 2) == (1, 2)
    with pytest.raises(ConfigInvalidError, match=r"data.kinds \[1, 2\]: .* one for each of 4"):
        counts_per_class((1, 2), 4)


def test_a_latent_diffusion_model_has_no_kinds() -> None:
    with pytest.raises(ConfigInvalidError, match=r"data.kinds \[2\]: a latent diffusion model has none"):
        plan(Wish(preset="ldm-cpu", settings=("data.kinds=[2]",)))


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second image of a class is much darker, which is a kind of its own."""
    folder = make_smear_dataset(tmp_path_factory.mktemp("kinds") / "smears", per_class=40, size=32)
    for path in sorted(folder.glob("*/*.jpg"))[::2]:
        Image.open(path).point(lambda value: value // 3).save(path, quality=95)
    return folder


def request(smears: Path, out: Path, *settings: str, **changes: Any) -> RunRequest:
    config = preset("smoke").with_settings([*SETTINGS, *settings])
    return RunRequest(config=config, data=smears, out=out, threads=1, **changes)


@pytest.fixture(scope="module")
def trained(smears: Path) -> RunDir:
    """A run of two kinds of one class."""
    return run(request(smears, smears.parent / "run", "data.kinds=[1,2,1,1]", "run.total_kimg=0.016"))


@pytest.fixture(scope="module")
def store(trained: RunDir) -> str:
    path = str(trained.path.parent / "store")
    publish_run(trained, ModelStore(path), Publication(name="parted", n_fake=12, allow_copies=True))
    return path


def trainer_from(store: str, smears: Path, *settings: str) -> Trainer:
    origin = load_origin("parted", store)
    all_images = ("data.hold_out_block=-1", "data.deduplicate=false", "discriminator.base_channels=4")
    config = plan(Wish(preset="masan", init=origin, settings=(*all_images, *settings))).config
    assert isinstance(config, TrainConfig)
    dataset, _ = load_split(config, smears)
    kinds = kinds_of_run(RunRequest(config=config, data=smears, out=smears, init=origin), dataset, {})
    trainer = Trainer(config, dataset, kinds=kinds)
    start_from(trainer, origin)
    return trainer


def test_run_goes_on_with_its_kinds(smears: Path, trained: RunDir, tmp_path: Path) -> None:
    whole = run(request(smears, tmp_path / "whole", "data.kinds=[1,2,1,1]", "run.total_kimg=0.032"))
    half = run(request(smears, tmp_path / "half", "data.kinds=[1,2,1,1]", "run.total_kimg=0.016"))

    run(request(smears, tmp_path / "unused", "run.total_kimg=0.032", resume=half.path))

    a, b = whole.load_state(), half.load_state()
    assert all(torch.equal(value, b["G"][name]) for name, value in a["G"].items())
    assert a["kinds"]["shares"] == b["kinds"]["shares"] == trained.load_state()["kinds"]["shares"]
    assert half.config().data.kinds == (1, 2, 1, 1)


def test_run_does_not_go_on_with_other_kinds(smears: Path, trained: RunDir) -> None:
    with pytest.raises(RunInvalidError, match=r"data.kinds \[2, 2, 2, 2\]: .* has \[1, 2, 1, 1\]"):
        run(request(smears, trained.path, "data.kinds=[2]", resume=trained.path))


def test_kinds_start_alike_and_learn_at_a_rate_of_their_own(smears: Path) -> None:
    rate = 2.0**-10
    settings = (f"optimizer.generator_lr={rate}", "optimizer.kind_lr_factor=8", "data.kinds=[2]")
    asked = request(smears, smears, *settings)
    dataset, _ = load_split(asked.config, smears)
    trainer = Trainer(asked.config, dataset, kinds=kinds_of_run(asked, dataset, {}))
    before = {name: parameter.detach().clone() for name, parameter in trainer.G.named_parameters()}

    trainer.step()

    for name, factor in ((KIND_INPUT, 8), (CLASS_INPUT, 1)):
        moved = (trainer.G.get_parameter(name) - before[name]).abs().max().item()
        assert moved == pytest.approx(factor * rate, rel=0.01)  # Adam's first step


def test_grown_run_keeps_its_kinds(smears: Path, trained: RunDir) -> None:
    asked = request(smears, smears, "run.resolution=32", "generator.rgb_skip=true", grow=trained.path)
    dataset, _ = load_split(asked.config, smears)
    kinds = kinds_of_run(asked, dataset, trained.load_state())
    large = Trainer(asked.config, dataset, kinds=kinds)

    grow_from(large, trained.load_state())

    assert kinds is not None and kinds.shares == trained.load_state()["kinds"]["shares"]


def test_published_generator_draws_kinds_in_their_shares(store: str, trained: RunDir) -> None:
    manifest = ModelStore(store).resolve("parted").manifest
    shares = trained.load_state()["kinds"]["shares"]
    network = trained_by_run(trained).network

    assert manifest.config["kind_shares"] == [list(of_class) for of_class in shares]
    assert len(manifest.classes) == 4
    assert isinstance(network, MasanGenerator) and network.kinds is not None
    choice = torch.randn(10_000, 2, generator=torch.Generator().manual_seed(0))
    kind = network.kinds(choice, torch.eye(4)[1].expand(10_000, -1)).mean(dim=0)
    assert kind.tolist() == pytest.approx([0, *shares[1], 0, 0], abs=0.02)


def test_run_from_a_checkpoint_has_its_kinds_in_its_order(store: str, smears: Path) -> None:
    origin = load_origin("parted", store)

    trainer = trainer_from(store, smears)

    assert trainer.kind_counts == (1, 2, 1, 1)
    assert trainer.class_label(torch.eye(5)).argmax(dim=1).tolist() == [0, 1, 1, 2, 3]
    assert torch.equal(trainer.class_label(torch.eye(4)), torch.eye(4))
    for name in (CLASS_INPUT, KIND_INPUT):
        torch.testing.assert_close(trainer.G.get_parameter(name), origin.weights[name])


@pytest.mark.parametrize("kinds", ["[1]", "[2,1,1,1]"])
def test_other_kinds_than_the_checkpoint_s_start_with_what_it_knew_of_the_class(
    store: str, smears: Path, kinds: str
) -> None:
    origin = load_origin("parted", store)
    of_kinds = origin.weights[KIND_INPUT]  # of classes 0, 1, 1, 2, 3
    common = torch.stack(
        [
            of_kinds[:, 0],
            of_kinds[:, 1:3] @ torch.tensor(origin.kind_shares[1]),
            of_kinds[:, 3],
            of_kinds[:, 4],
        ],
        dim=1,
    )

    trainer = trainer_from(store, smears, f"data.kinds={kinds}")

    expected = origin.weights[CLASS_INPUT].clone()
    expected[:, :4] += common
    torch.testing.assert_close(trainer.G.get_parameter(CLASS_INPUT), expected)
    assert all(not value.any() for name, value in trainer.G.named_parameters() if name == KIND_INPUT)
    assert (KIND_INPUT in dict(trainer.G.named_parameters())) is (kinds != "[1]")
