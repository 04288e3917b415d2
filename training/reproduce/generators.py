"""The unit that trains a generator, and how others get at what it made."""

import hashlib
import shutil
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

import torch

from model_store.generators.registry import Generator
from model_store.weights import encode_weights
from training.config import TrainConfig
from training.diffusion.config import DiffusionConfig
from training.diffusion.export import trained_by_diffusion_run
from training.diffusion.train import DiffusionRequest, run_diffusion
from training.errors import RunInvalidError, StoppedError, TrainingDivergedError
from training.export import TrainedGenerator, trained_by_run
from training.reproduce.folds import Fold
from training.reproduce.rates import Rates
from training.reproduce.unit import Unit
from training.reproduce.workspace import Pixels, Workspace
from training.run_dir import RunDir
from training.runner import RunRequest, run


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """A generator to draw with, the digest that its images are functions of, and its classes in order."""

    generator: Generator
    digest: str
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GeneratorUnit(Unit):
    """A unit whose result is about a generator: `run`, `digest` (None if there is none), `images_seen`,
    `hours`, `device`, `commit`, `images_of_training`, `diverged`.

    label: how people call it.
    """

    label: str

    @abstractmethod
    def draw_seconds(self, rates: Rates, images: int) -> float:
        """How long that many of its images take, by estimate."""

    @abstractmethod
    def ready(self, workspace: Workspace) -> Ready | None:
        """The generator once the unit has run; None if it left none."""


@dataclass(frozen=True, kw_only=True)
class TrainGenerator(GeneratorUnit):
    """One run as `masan train` makes it, with a run folder of its own; resumed where it was stopped.

    fold: the fold whose test images it must not see, if no block is held out. images: of the dataset, for
    the estimate.
    """

    kind: ClassVar[str] = "train"
    recipe: TrainConfig | DiffusionConfig
    fold: Fold | None = None
    images: int = 0

    # A recipe holds a dict (class names), which has no hash.
    def __hash__(self) -> int:
        return hash((self.data, self.label, self.recipe.run, self.recipe.data.hold_out_block, self.fold))

    def title(self) -> str:
        parts = [f"train {self.label}", f"seed {self.recipe.run.seed}"]
        block = self.recipe.data.hold_out_block
        if block >= 0:
            parts.append(f"without block {block + 1}")
        if self.fold is not None:
            parts.append(f"without random fold {self.fold.index + 1}")
        return ", ".join(parts)

    def config(self) -> dict[str, Any]:
        hidden = None if self.fold is None else vars(self.fold)
        return {"recipe": _without_later_fields(self.recipe.to_dict()), "hidden_fold": hidden}

    def seconds(self, rates: Rates) -> float:
        if isinstance(self.recipe, DiffusionConfig):
            return rates.train_diffusion(self.recipe, self.images)
        return rates.train_gan(self.recipe)

    def draw_seconds(self, rates: Rates, images: int) -> float:
        return rates.draw(self.recipe, images)

    def ready(self, workspace: Workspace) -> Ready | None:
        run_dir = RunDir.open(workspace.out / workspace.finished(self)["run"])
        trained = self.trained(run_dir, diverged="")
        if trained is None:
            return None
        digest, generator = weights_digest(trained), as_served(trained, workspace.torch_device)
        return Ready(generator=generator, digest=digest, classes=trained.classes)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """The run's folder, digest, counts; `diverged` says so where it did, None where it did not."""
        folder = workspace.run_folder(self, self.recipe.recipe)
        if folder.exists() and not (folder / "state.pt").exists():
            shutil.rmtree(folder)  # stopped before there was anything to go on from
        if workspace.stop():
            raise StoppedError(f"stopped before {self.title()}")
        diverged = None
        try:
            run_dir = self._train(workspace, folder.exists())
        except TrainingDivergedError as error:
            run_dir, diverged = RunDir.open(folder), str(error)
        trained = self.trained(run_dir, diverged)
        if trained is not None and diverged is None and not self._is_done(trained):
            raise StoppedError(f"{self.title()} stopped after {trained.images_seen} images")
        digest = None
        if trained is not None:
            try:
                digest = weights_digest(trained)
            except ValueError as error:  # weights that float16 cannot hold cannot be published either
                diverged = str(error)
        started = run_dir.environment()
        return {
            "run": folder.relative_to(workspace.out).as_posix(),
            "digest": digest,
            "images_seen": 0 if trained is None else trained.images_seen,
            "hours": 0.0 if trained is None else round(trained.seconds_trained / 3600, 4),
            "device": started["device"],
            "commit": started["commit"],
            "images_of_training": sum(started["dataset"]["images_per_class"].values()),
            "diverged": diverged,
        }

    def _train(self, workspace: Workspace, resumes: bool) -> RunDir:
        folder = workspace.run_folder(self, self.recipe.recipe)
        common: dict[str, Any] = {
            "data": workspace.root,
            "out": folder,
            "resume": folder if resumes else None,
            "device": workspace.device,
            "threads": workspace.threads,
            "hidden": self._hidden(workspace),
        }
        if isinstance(self.recipe, DiffusionConfig):
            return run_diffusion(DiffusionRequest(config=self.recipe, **common))
        return run(RunRequest(config=self.recipe, **common))

    def _hidden(self, workspace: Workspace) -> frozenset[str]:
        if self.fold is None:
            return frozenset()
        return self.fold.hidden_from_generators(workspace.dataset(self.data))

    def trained(self, run_dir: RunDir, diverged: str | None) -> TrainedGenerator | None:
        """None for a diffusion run that diverged before it had a generator. Raises StoppedError."""
        if not isinstance(self.recipe, DiffusionConfig):
            return trained_by_run(run_dir)
        try:
            return trained_by_diffusion_run(run_dir)
        except RunInvalidError:
            if diverged is None:
                raise StoppedError(f"{self.title()} stopped in its first stage") from None
            return None

    def _is_done(self, trained: TrainedGenerator) -> bool:
        return trained.images_seen >= int(self.recipe.run.total_kimg * 1000)


def generated_images(workspace: Workspace, unit: GeneratorUnit, count: int) -> dict[str, Pixels] | None:
    """`count` images of each class at the size of the unit's data; None if there is no generator."""
    if workspace.finished(unit)["digest"] is None:
        return None
    ready = unit.ready(workspace)
    if ready is None:
        return None
    return workspace.drawn(ready.generator, ready.digest, ready.classes, count, unit.data.resolution)


def as_served(trained: TrainedGenerator, device: torch.device) -> Generator:
    """The generator with its weights as float16 would hold them, as published ones are."""
    network = trained.network.half().float().to(device).eval().requires_grad_(False)
    return cast("Generator", network)


def weights_digest(trained: TrainedGenerator) -> str:
    """Hex sha256 of the weights as they would be published. Raises ValueError for what is not finite."""
    return hashlib.sha256(encode_weights(trained.network, torch.float16)).hexdigest()


def runs_of(workspace: Workspace, units: Sequence[GeneratorUnit]) -> list[dict[str, Any]]:
    """What a table tells of the trainings behind a row."""
    return [{"title": unit.title(), **workspace.finished(unit)} for unit in units]


_LATER_FIELDS: Final[tuple[tuple[str, str, Any], ...]] = (
    ("generator", "padding", "zeros"),
    ("generator", "refine_resolutions", ()),
    ("generator", "chroma_resolution", None),
    ("data", "kinds", ()),
    ("data", "held_classes", ()),
    ("optimizer", "added_lr_factor", 1.0),
    ("optimizer", "kind_lr_factor", 1.0),
    ("optimizer", "rampup_kimg", 0.0),
    ("optimizer", "decay_kimg", 0.0),
    ("losses", "frechet_weight", 0.0),
    ("losses", "frechet_networks", (0,)),
    ("losses", "neighbour_weight", 0.0),
    ("optimizer", "micro_batch", 0),
    ("augment", "translation_probability", 1.0),
    ("augment", "translation_ratio", 0.125),
    ("augment", "translation_fill", "zeros"),
)


def _without_later_fields(recipe: dict[str, Any]) -> dict[str, Any]:
    """Without what recipes have gained since, where it says what was so before: keys of old results stand."""
    for part, name, value in _LATER_FIELDS:
        if name in recipe.get(part, {}) and recipe[part][name] == value:
            recipe = recipe | {part: {k: v for k, v in recipe[part].items() if k != name}}
    return recipe
