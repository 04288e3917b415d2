from pathlib import Path

import pytest
import torch

from model_store.store import ModelStore
from model_store.weights import load_generator
from tests.smears import make_smear_dataset
from training.errors import ConfigInvalidError, RunInvalidError
from training.export import Publication, publish_run
from training.loop import Trainer
from training.origin import Origin, load_origin
from training.plan import Wish, plan
from training.presets import preset
from training.run_dir import RunDir
from training.runner import RunRequest, load_training_set, run

TINY = (
    "discriminator.kind=pixel",
    "generator.latent_dim=8",
    "run.total_kimg=0.016",
    "data.hold_out_block=4",
)


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smear_dataset(tmp_path_factory.mktemp("origin") / "smears", per_class=16)


@pytest.fixture(scope="module")
def store(smears: Path) -> str:
    """A store with a checkpoint `first@1`, trained for a moment."""
    config = preset("smoke").with_settings(list(TINY))
    run_dir = run(RunRequest(config=config, data=smears, out=smears.parent / "run", threads=1))
    path = str(smears.parent / "store")
    publish_run(run_dir, ModelStore(path), Publication(name="first", n_fake=12))
    return path


def trainer_from(origin: Origin, smears: Path, *settings: str) -> Trainer:
    wish = Wish(preset="smoke", init=origin, settings=("discriminator.kind=pixel", *settings))
    config = plan(wish).config
    assert config.recipe == "smoke"
    trainer = Trainer(config, load_training_set(config, smears))  # type: ignore[arg-type]
    trainer.start_from(origin)
    return trainer


def test_run_starts_with_the_checkpoint_s_images_and_counts(store: str, smears: Path) -> None:
    origin = load_origin("first@1", store)
    models = ModelStore(store)
    published = load_generator(models, models.resolve("first@1"), torch.device("cpu"))

    trainer = trainer_from(origin, smears, "generator.noise_resolutions=[4]")

    generator = trainer.export_generator()
    z, label = torch.randn(4, 8 + 16), torch.eye(4)
    with torch.no_grad():
        torch.testing.assert_close(generator(z, label), published(z[:, :8], label), rtol=0, atol=2e-3)
    assert trainer.images_seen == origin.manifest.training.images_seen == 16
    trainer.step()  # the discriminator alone
    assert trainer.warmup_left > 0


def test_other_classes_start_anew(store: str, smears: Path) -> None:
    other = make_smear_dataset(smears.parent / "other", per_class=6)
    (other / "Pro").rename(other / "Blast")
    origin = load_origin("first", store)

    trainer = trainer_from(origin, other)

    own = dict(trainer.G.named_parameters())
    assert not torch.equal(own["mapping.layers.0.weight"], origin.weights["mapping.layers.0.weight"])
    torch.testing.assert_close(own["init_z.weight"], origin.weights["init_z.weight"])


def test_networks_that_do_not_fit_are_named(store: str, smears: Path) -> None:
    with pytest.raises(RunInvalidError, match=r"first@1 does not fit this generator"):
        trainer_from(load_origin("first", store), smears, "generator.base_channels=8")


@pytest.mark.parametrize("reference", ["second", "first@9"])
def test_unknown_checkpoint_is_a_clear_error(store: str, reference: str) -> None:
    with pytest.raises(ConfigInvalidError, match=f"--init '{reference}': .*{reference.partition('@')[0]}"):
        load_origin(reference, store)


def test_history_and_publication_tell_the_origin(store: str, smears: Path) -> None:
    wish = Wish(
        preset="smoke",
        init=load_origin("first", store),
        total_kimg=0.032,
        settings=("discriminator.kind=pixel", "optimizer.warmup_kimg=0", "data.hold_out_block=4"),
    )
    planned = plan(wish)

    run_dir = planned.run(
        data=smears, out=smears.parent / "second", device="cpu", time_budget_s=60, threads=1
    )

    assert isinstance(run_dir, RunDir)
    (entry,) = run_dir.history()
    assert (entry["how"], entry["initialized_from"]["checkpoint"]) == ("initialized", "first@1")
    checkpoint = publish_run(run_dir, ModelStore(store), Publication(name="second", n_fake=12))
    assert "Started from first@1" in checkpoint.manifest.training.notes
    assert checkpoint.manifest.training.images_seen == 32
