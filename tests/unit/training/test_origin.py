from pathlib import Path

import pytest
import torch
from torch import Tensor

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
from training.runner import RunRequest, load_split, run
from training.starting import start_from, take_discriminators

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
    trainer = Trainer(config, load_split(config, smears)[0])  # type: ignore[arg-type]
    start_from(trainer, origin)
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


@pytest.mark.parametrize("gain", [1, 0.02])
def test_weights_under_spectral_norm_start_at_least_as_large_as_fresh_ones(
    store: str, smears: Path, gain: float
) -> None:
    """So that a learning rate moves them as it moves those of a run from nothing."""
    origin = load_origin("first", store)
    settings = ("discriminator.kind=pixel", "data.hold_out_block=4", f"generator.init_gain={gain}")
    config = plan(Wish(preset="smoke", init=origin, settings=settings)).config
    trainer = Trainer(config, load_split(config, smears)[0])  # type: ignore[arg-type]
    fresh = {name: parameter.norm() for name, parameter in trainer.G.named_parameters()}

    start_from(trainer, origin)

    own = dict(trainer.G.named_parameters())
    enlarged: list[bool] = []
    for name, weight in origin.weights.items():
        if name in trainer.normalize_G.names:
            torch.testing.assert_close(own[name].norm(), torch.maximum(fresh[name], weight.norm()))
            enlarged.append(bool(own[name].norm() > 1.01 * weight.norm()))
            torch.testing.assert_close(own[name] / own[name].norm(), weight / weight.norm())
        else:
            torch.testing.assert_close(own[name], weight)
    assert any(enlarged) is (gain == 1)


def test_refinements_that_a_checkpoint_lacks_start_silent_and_learn(store: str, smears: Path) -> None:
    origin = load_origin("first", store)
    models = ModelStore(store)
    published = load_generator(models, models.resolve("first@1"), torch.device("cpu"))

    trainer = trainer_from(origin, smears, "generator.refine_resolutions=[16,64]", "optimizer.warmup_kimg=0")

    z, label = torch.randn(4, 8), torch.eye(4)
    with torch.no_grad():
        drawn = trainer.export_generator()(z, label)
        torch.testing.assert_close(drawn, published(z, label), rtol=0, atol=2e-3)
    trainer.step()
    assert trainer.G.get_parameter("refine.64.outer.weight").abs().max() > 0
    assert torch.isfinite(trainer.export_generator()(z, label)).all()


def test_discriminators_of_a_run_go_on_in_another(store: str, smears: Path) -> None:
    first = RunDir.open(smears.parent / "run")
    settings = ("discriminator.kind=pixel", "optimizer.warmup_kimg=0", "data.hold_out_block=4")
    wish = Wish(
        preset="smoke",
        init=load_origin("first", store),
        discriminators=first.path,
        total_kimg=0.016,  # as many images as the checkpoint has seen: no step is taken
        settings=settings,
    )

    run_dir = plan(wish).run(
        data=smears, out=smears.parent / "third", device="cpu", time_budget_s=60, threads=1
    )

    assert isinstance(run_dir, RunDir)
    source, state = first.load_state(), run_dir.load_state()
    for name, value in source["D"].items():
        torch.testing.assert_close(state["D"][name], value)
    moments = state["optimizer_D"]["state"]
    torch.testing.assert_close(moments[0]["exp_avg_sq"], source["optimizer_D"]["state"][0]["exp_avg_sq"])
    (entry,) = run_dir.history()
    assert entry["discriminators_of"] == {"run": "run", "images_seen": 16}


@pytest.mark.parametrize(
    ("setting", "go_on"), [("run.seed=1", True), ("discriminator.base_channels=8", False)]
)
def test_published_discriminators_go_on_where_they_fit(
    store: str, smears: Path, setting: str, go_on: bool
) -> None:
    first = RunDir.open(smears.parent / "run")
    name = f"kept-{go_on}".lower()
    checkpoint = publish_run(first, ModelStore(store), Publication(name=name, n_fake=12, discriminators=True))
    assert checkpoint.manifest.reports[-1].path == "discriminators.safetensors"
    wish = Wish(
        preset="smoke",
        init=load_origin(name, store),
        total_kimg=0.016,
        settings=("discriminator.kind=pixel", "data.hold_out_block=4", setting),
    )

    run_dir = plan(wish).run(data=smears, out=smears.parent / name, device="cpu", time_budget_s=60, threads=1)

    assert isinstance(run_dir, RunDir)
    (entry,) = run_dir.history()
    assert entry["initialized_from"]["discriminators"] is go_on
    source, state = first.load_state()["D"], run_dir.load_state()["D"]
    name = next(name for name in source if name.endswith("weight"))
    if go_on:
        torch.testing.assert_close(state[name], source[name], rtol=2e-3, atol=1e-5)


def test_damaged_discriminators_are_a_clear_error(store: str, smears: Path) -> None:
    publication = Publication(name="damaged", n_fake=12, discriminators=True)
    publish_run(RunDir.open(smears.parent / "run"), ModelStore(store), publication)
    (kept,) = Path(store).rglob("damaged/**/discriminators.safetensors")
    kept.write_bytes(kept.read_bytes()[:-1])

    with pytest.raises(ConfigInvalidError, match=r"--init 'damaged': .*discriminators.safetensors"):
        load_origin("damaged", store)


def test_discriminators_of_other_networks_are_refused_in_one_line(store: str, smears: Path) -> None:
    state = RunDir.open(smears.parent / "run").load_state()
    trainer = trainer_from(load_origin("first", store), smears, "discriminator.base_channels=8")

    with pytest.raises(RunInvalidError, match=r"^the run's discriminators are not this run's: [^\n]*$"):
        take_discriminators(trainer, state)


def test_discriminators_need_the_generator_they_judge(smears: Path) -> None:
    with pytest.raises(ConfigInvalidError, match="--discriminators goes with --init"):
        plan(Wish(preset="smoke", discriminators=smears.parent / "run"))


def test_other_classes_start_anew(store: str, smears: Path) -> None:
    other = make_smear_dataset(smears.parent / "other", per_class=6)
    (other / "Pro").rename(other / "Blast")
    origin = load_origin("first", store)

    trainer = trainer_from(origin, other)

    own = dict(trainer.G.named_parameters())
    assert not torch.equal(own["mapping.layers.0.weight"], origin.weights["mapping.layers.0.weight"])
    kept, taken = (weights["init_z.weight"] for weights in (own, origin.weights))
    torch.testing.assert_close(kept / kept.norm(), taken / taken.norm())


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


def draw(store: str, reference: str, z: Tensor) -> Tensor:
    """Images of each class from the same latents, as the published generator draws them."""
    models = ModelStore(store)
    generator = load_generator(models, models.resolve(reference), torch.device("cpu"))
    assert generator.latent_dim == z.shape[1]
    with torch.no_grad():
        return generator(z, torch.eye(4))


def publish_taught(store: str, smears: Path, origin: str, name: str, *settings: str) -> RunDir:
    """Publish what a run of one step from a checkpoint made."""
    wish = Wish(preset="smoke", init=load_origin(origin, store), settings=settings)
    made = plan(wish)
    config = made.config.with_settings(["optimizer.warmup_kimg=0", "optimizer.generator_lr=0.01"])
    out = smears.parent / f"run-of-{name}"
    run_dir = run(RunRequest(config=config, data=smears, out=out, init=made.init, threads=1))  # type: ignore[arg-type]
    publish_run(run_dir, ModelStore(store), Publication(name=name, n_fake=12))
    return run_dir


def test_classes_held_are_published_as_they_were_and_the_others_as_taught(store: str, smears: Path) -> None:
    held = ('data.held_classes=["benign","pro_b"]', "discriminator.kind=pixel", "run.total_kimg=0.024")
    z = torch.randn(4, 8)

    run_dir = publish_taught(store, smears, "first@1", "second", *held)

    before, after = draw(store, "first", z), draw(store, "second", z)
    assert torch.equal(after[[0, 3]], before[[0, 3]])
    assert all((after[index] - before[index]).abs().max() > 0.01 for index in (1, 2))
    resumed = run(RunRequest(config=run_dir.config(), data=smears, out=run_dir.path, resume=run_dir.path))
    assert resumed.load_state()["held"][0]["classes"] == [0, 3]


def test_run_goes_on_with_the_expert_of_what_it_teaches(store: str, smears: Path) -> None:
    held = ("discriminator.kind=pixel", "run.total_kimg=0.024", 'data.held_classes=["benign"]')
    publish_taught(store, smears, "first@1", "early", *held)
    z = torch.randn(4, 8)
    three = ('data.held_classes=["benign","early_pre_b","pre_b"]', *held[:1], "run.total_kimg=0.032")

    origin = load_origin("early", store)
    publish_taught(store, smears, "early", "third", *three)

    assert [list(expert.classes) for expert, _ in origin.experts] == [[0], [1, 2, 3]]
    assert plan(Wish(preset="smoke", init=origin)).init.chosen == 0  # type: ignore[union-attr]
    assert plan(Wish(preset="smoke", init=origin, settings=three)).init.chosen == 1  # type: ignore[union-attr]
    third = load_origin("third", store)
    assert [list(expert.classes) for expert, _ in third.experts] == [[0], [1, 2], [3]]
    assert torch.equal(draw(store, "third", z)[:3], draw(store, "early", z)[:3])


def test_classes_of_another_checkpoint_are_not_held(store: str, tmp_path: Path) -> None:
    origin = load_origin("first@1", store)
    others = make_smear_dataset(tmp_path / "other", per_class=6)
    (others / "Benign").rename(others / "Healthy")
    wish = Wish(preset="smoke", init=origin, settings=(*TINY, 'data.held_classes=["healthy"]'))
    made = plan(wish)

    with pytest.raises(RunInvalidError, match=r"data.held_classes: first@1 is of other classes"):
        run(RunRequest(config=made.config, data=others, out=tmp_path / "run", init=made.init))  # type: ignore[arg-type]
