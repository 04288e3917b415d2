"""Table II: what augmentation, EMA attention and the SAN head add to CellGAN, and our recipe beside it."""

from typing import ClassVar

from training.reproduce.gan_table import GanTable, Row


class Table2(GanTable):
    """Rows `none`, `color`, `attention`, `san` and `ours`."""

    name: ClassVar[str] = "table2"
    title: ClassVar[str] = "Table II: ablation"
    all_rows: ClassVar[tuple[Row, ...]] = (
        Row(name="none", label="CellGAN", preset="paper-cellgan-none", paper=("table2", "none")),
        Row(name="color", label="+ Color", preset="paper-cellgan-color", paper=("table2", "color")),
        Row(
            name="attention",
            label="+ Color + EMA attention",
            preset="paper-attention-color",
            paper=("table2", "attention"),
        ),
        Row(
            name="san",
            label="+ Color + EMA attention + SAN (MASAN)",
            preset="paper-masan-color",
            paper=("table2", "san"),
        ),
        Row(name="ours", label="masan-projected (ours)", preset="masan-projected"),
    )
    claims: ClassVar[tuple[tuple[str, str], ...]] = (
        ("color", "none"),
        ("attention", "color"),
        ("san", "attention"),
        ("ours", "san"),
    )
