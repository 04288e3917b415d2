"""Generators that exist already, in place of ones that a table would train."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import torch
from torch.utils.flop_counter import FlopCounterMode

from model_store.errors import ModelStoreError
from model_store.generators.registry import Generator
from model_store.weights import load_generator
from training.data import Dataset
from training.diffusion.export import trained_by_diffusion_run
from training.errors import ConfigInvalidError
from training.export import trained_by_run
from training.reproduce.generators import GeneratorUnit, Ready, as_served, weights_digest
from training.reproduce.rates import SETUP_S, Rates
from training.reproduce.unit import DataSpec
from training.reproduce.workspace import Workspace
from training.run_dir import RunDir
from training.stores import store_with

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NOT_NAMES: Final = ("real", "real-equal-steps", "classical")
"""Rows that have no generator."""
CPU: Final = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A generator that exists. facts: how it came about, as a training's result tells it.

    data_digest: of the images it was trained on. resolution: of what it draws, px.
    """

    generator: Generator
    digest: str
    classes: tuple[str, ...]
    resolution: int
    data_digest: str
    facts: Mapping[str, Any]


def open_generator(what: str, store_url: str | None, device: torch.device = CPU) -> Opened:
    """What a run folder, or a reference to a checkpoint, names.

    store_url: None for the checkpoints that ship and those of data/store. Raises ModelStoreError,
    RunInvalidError.
    """
    if (Path(what) / "config.json").exists():
        return _open_run(Path(what), device)
    store = store_with(what, store_url)
    checkpoint = store.resolve(what)
    manifest = checkpoint.manifest
    return Opened(
        generator=load_generator(store, checkpoint, device),
        digest=manifest.digest,
        classes=manifest.classes,
        resolution=manifest.resolution,
        data_digest=manifest.dataset.digest,
        facts={
            "run": manifest.reference,
            "digest": manifest.digest,
            "images_seen": manifest.training.images_seen,
            "hours": manifest.training.hours,
            "device": manifest.training.device,
            "commit": manifest.training.commit,
            "images_of_training": sum(manifest.dataset.images_per_class.values()),
        },
    )


def _open_run(folder: Path, device: torch.device) -> Opened:
    run_dir = RunDir.open(folder)
    trained = trained_by_diffusion_run(run_dir) if run_dir.is_diffusion() else trained_by_run(run_dir)
    digest, started = weights_digest(trained), run_dir.environment()
    return Opened(
        generator=as_served(trained, device),
        digest=digest,
        classes=trained.classes,
        resolution=trained.run.resolution,
        data_digest=started["dataset"]["digest"],
        facts={
            "run": folder.resolve().name,
            "digest": digest,
            "images_seen": trained.images_seen,
            "hours": round(trained.seconds_trained / 3600, 4),
            "device": started["device"],
            "commit": started["commit"],
            "images_of_training": sum(started["dataset"]["images_per_class"].values()),
        },
    )


@dataclass(frozen=True, kw_only=True)
class Given:
    """A generator that the command line names. name: of its row. what: where it is; see `open_generator`.

    shown: how a reader may find it, without a place on this machine.
    """

    name: str
    what: str
    store_url: str | None
    digest: str
    shown: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, text: str, store_url: str | None, classes: Sequence[str]) -> Self:
        """From `NAME=WHAT`. Raises ConfigInvalidError, also for one that lacks one of `classes`."""
        name, separator, what = text.partition("=")
        if not (separator and what and _NAME.fullmatch(name)) or name in NOT_NAMES:
            raise ConfigInvalidError(
                f"--generator {text!r}: write NAME=RUN_FOLDER or NAME=CHECKPOINT, such as ours=b-all"
            )
        try:
            opened = open_generator(what, store_url)
        except ModelStoreError as error:
            raise ConfigInvalidError(f"--generator {name}: {error}") from error
        missing = [slug for slug in classes if slug not in opened.classes]
        if missing:
            raise ConfigInvalidError(
                f"--generator {name}: has no class {missing[0]!r}; it has {', '.join(opened.classes)}"
            )
        return cls(
            name=name,
            what=what,
            store_url=store_url,
            digest=opened.digest,
            shown=str(opened.facts["run"]),
            classes=opened.classes,
        )

    def unit(self, label: str, data: DataSpec, unseen_block: int) -> "GivenGenerator":
        """The unit that others draw from."""
        return GivenGenerator(data=data, label=label, given=self, unseen_block=unseen_block)


@dataclass(frozen=True, kw_only=True)
class GivenGenerator(GeneratorUnit):
    """Looks at what a given generator was trained on; its images are drawn at the size of `data`.

    unseen_block: that it must not have been trained on, -1 if it may have seen everything.
    """

    kind: ClassVar[str] = "given"
    given: Given
    unseen_block: int

    def title(self) -> str:
        return f"{self.label}, given: {self.given.shown}"

    def config(self) -> dict[str, Any]:
        return {"digest": self.given.digest, "unseen_block": self.unseen_block}

    def seconds(self, rates: Rates) -> float:  # noqa: ARG002 -- nothing is computed
        return SETUP_S

    def draw_seconds(self, rates: Rates, images: int) -> float:
        return rates.draw_by(f"given/{self.given.digest}", self._flops, images)

    def run(self, workspace: Workspace) -> dict[str, Any]:
        """As of a training. Raises ConfigInvalidError unless it was trained on all images but the block's."""
        opened = self._open(CPU)
        if self.unseen_block >= 0:
            whole = workspace.dataset(replace(self.data, resolution=opened.resolution))
            if opened.data_digest != _digest_without(whole, self.unseen_block):
                raise ConfigInvalidError(
                    f"--generator {self.given.name}: {self.given.shown} was not trained on these images"
                    f" without block {self.unseen_block + 1}, so that block cannot test it;"
                    " --gan-train-scope all uses it all the same and says so"
                )
        return {**opened.facts, "diverged": None}

    def ready(self, workspace: Workspace) -> Ready:
        opened = self._open(workspace.torch_device)
        return Ready(generator=opened.generator, digest=opened.digest, classes=opened.classes)

    def _open(self, device: torch.device) -> Opened:
        """Raises ConfigInvalidError if it has changed since the command began."""
        try:
            opened = open_generator(self.given.what, self.given.store_url, device)
        except ModelStoreError as error:
            raise ConfigInvalidError(f"--generator {self.given.name}: {error}") from error
        if opened.digest != self.given.digest:
            raise ConfigInvalidError(
                f"--generator {self.given.name}: {self.given.shown} has changed meanwhile"
            )
        return opened

    def _flops(self) -> float:
        """Of one image."""
        generator = self._open(CPU).generator
        label = torch.eye(len(self.given.classes))[:1]
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            generator(torch.zeros(1, generator.latent_dim), label)
        return float(counter.get_total_flops())


def _digest_without(dataset: Dataset, block: int) -> str:
    """Digest of the dataset without that block."""
    # Of the pixels a sliver will do: the digest is one over files, and a copy of all would fill the memory.
    thin = replace(dataset, images=dataset.images[:, :1, :1], invented=dataset.invented[:, :1, :1])
    return thin.subset(thin.blocks != block).digest
