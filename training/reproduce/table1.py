"""Table I: five augmentations for CellGAN and for MASAN."""

from typing import ClassVar, Final

from training.presets import POLICIES
from training.reproduce.gan_table import GanTable, Row

_NETWORKS: Final = {"cellgan": "CellGAN", "masan": "MASAN"}


class Table1(GanTable):
    """Rows `cellgan-none` to `masan-color-cutout-translation`."""

    name: ClassVar[str] = "table1"
    title: ClassVar[str] = "Table I: augmentation of what the discriminator sees"
    all_rows: ClassVar[tuple[Row, ...]] = tuple(
        Row(
            name=f"{network}-{policy}",
            label=f"{label}, {policy}",
            preset=f"paper-{network}-{policy}",
            paper=("table1", policy, network),
        )
        for policy in POLICIES
        for network, label in _NETWORKS.items()
    )
    claims: ClassVar[tuple[tuple[str, str], ...]] = (
        *((f"masan-{policy}", f"cellgan-{policy}") for policy in POLICIES),
        *(
            (f"{network}-{policy}", f"{network}-none")
            for network in _NETWORKS
            for policy in POLICIES
            if policy != "none"
        ),
    )
