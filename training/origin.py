"""A published checkpoint as the place where a run starts: its architecture, weights and history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from model_store.errors import ModelStoreError
from model_store.generators.experts import ARCHITECTURES, ExpertConfig, ExpertsGenerator
from model_store.generators.kinds import Shares
from model_store.generators.registry import Generator
from model_store.manifest import Manifest
from model_store.weights import load_generator
from training.errors import ConfigInvalidError
from training.kept_discriminators import load_discriminators
from training.stores import store_with


@dataclass(frozen=True, eq=False)
class Origin:
    """A checkpoint to start from.

    experts: its networks and what each is asked for, float32, on the CPU, spectral norm folded in; one of all
    classes where the checkpoint is a single network. discriminators: what it kept of them, None if nothing.
    chosen: which expert the run goes on with.
    """

    manifest: Manifest
    experts: tuple[tuple[ExpertConfig, Generator], ...]
    discriminators: Mapping[str, Tensor] | None = None
    chosen: int = 0

    def teaching(self, held: Sequence[str]) -> "Origin":
        """The same, going on with the expert of the first class that is not held."""
        taught = [index for index, name in enumerate(self.manifest.classes) if name not in held]
        owners = [i for i, (expert, _) in enumerate(self.experts) if set(taught[:1]) <= set(expert.classes)]
        return replace(self, chosen=owners[0])

    @property
    def generator(self) -> Generator:
        """The chosen expert's network."""
        return self.experts[self.chosen][1]

    @property
    def config(self) -> Mapping[str, Any]:
        """Its arguments."""
        return self.experts[self.chosen][0].config

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its parameters."""
        module = cast("nn.Module", self.generator)
        return {name: parameter.detach() for name, parameter in module.named_parameters()}

    @property
    def kind_shares(self) -> Shares:
        """Shares of each class's kinds; a class that is not parted is one kind."""
        shares = self.config.get("kind_shares") or [[1.0]] * len(self.manifest.classes)
        return tuple(map(tuple, shares))

    def generator_options(self, names: set[str]) -> dict[str, Any]:
        """Those arguments of its architecture that are among `names`."""
        values = {key: value for key, value in self.config.items() if key in names}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    def describe(self) -> dict[str, Any]:
        """What a run's history keeps of it."""
        training = self.manifest.training
        return {
            "checkpoint": self.manifest.reference,
            "digest": self.manifest.digest,
            "images_seen": training.images_seen,
            "hours": training.hours,
            "commit": training.commit,
        }


def load_origin(reference: str, store: str | None = None) -> Origin:
    """The checkpoint of that name. store: default the one that ships, then data/store.

    Raises ConfigInvalidError if it cannot be read, or is of another family of networks.
    """
    try:
        models = store_with(reference, store)
        checkpoint = models.resolve(reference)
        generator = load_generator(models, checkpoint, torch.device("cpu"))
        discriminators = load_discriminators(models, checkpoint)
    except ModelStoreError as error:
        raise ConfigInvalidError(f"--init {reference!r}: {error}") from None
    manifest = checkpoint.manifest
    if isinstance(generator, ExpertsGenerator):
        configs = [ExpertConfig(**part) for part in manifest.config["experts"]]
        experts = tuple(zip(configs, generator.networks, strict=True))
        return Origin(manifest, experts, discriminators)
    if manifest.architecture not in ARCHITECTURES:
        raise ConfigInvalidError(
            f"--init {reference!r}: architecture {manifest.architecture} is not masan or cellgan"
        )
    whole = ExpertConfig(
        architecture=manifest.architecture, config=manifest.config, classes=range(len(manifest.classes))
    )
    return Origin(manifest, ((whole, generator),), discriminators)
