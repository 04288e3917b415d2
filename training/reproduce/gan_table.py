"""Tables of generators, one row a recipe: Frechet distance and KID per class under every judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from model_store.report import CELLGAN_EXTRACTOR
from training.reproduce.experiment import (
    NONE,
    Dot,
    Experiment,
    Plot,
    Report,
    Section,
    cell,
    mean_sd,
    optional,
    run_section,
)
from training.reproduce.findings import KID_SCALE, PRIMARY_JUDGE, distance_finding, known
from training.reproduce.generators import TrainGenerator
from training.reproduce.judging import Judge, References
from training.reproduce.published import published
from training.reproduce.recipes import SEED, Images, gan_recipe, hold_out
from training.reproduce.scale import PAPER, Scale
from training.reproduce.unit import Unit
from training.reproduce.verdict import Finding
from training.reproduce.workspace import Workspace

LEARNED_COVERAGE: Final = 0.05
"""Mean coverage below which images resemble next to nothing real, so that their order tells little."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A recipe of a table. paper: where its published figures stand, empty for rows that are ours."""

    name: str
    label: str
    preset: str
    paper: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GanTable(Experiment):
    """images: what all rows are trained on; scope `fold` does not exist here."""

    knobs: ClassVar[tuple[str, ...]] = (
        "resolution",
        "base_channels",
        "batch",
        "kimg",
        "seeds",
        "n_fake",
        "n_real",
    )
    title: ClassVar[str]
    all_rows: ClassVar[tuple[Row, ...]]
    claims: ClassVar[tuple[tuple[str, str], ...]]
    """Rows that are compared: a row, and what it stands against."""
    images: Images = field(default_factory=Images)
    inception: bool = False

    def rows(self) -> list[Row]:
        """Those asked for."""
        names = self.chosen([row.name for row in self.all_rows])
        return [row for row in self.all_rows if row.name in names]

    def units(self, scale: Scale) -> list[Unit]:
        """Seeds outermost: stopped early, every row has been run equally often."""
        return [self._judge(row, scale, seed) for seed in range(scale.seeds) for row in self.rows()]

    def judges(self, row: Row, scale: Scale) -> list[Judge]:
        """A row's runs, one per seed."""
        return [self._judge(row, scale, seed) for seed in range(scale.seeds)]

    def _judge(self, row: Row, scale: Scale, seed: int) -> Judge:
        data = self.images.at(scale.resolution)
        recipe = gan_recipe(row.preset, scale, self.images, hold_out(self.images.scope), SEED + seed)
        return Judge(
            data=data,
            train=TrainGenerator(data=data, label=row.label, recipe=recipe, images=self.facts.images),
            references=References(
                data=data,
                n_real=scale.n_real,
                images=self.facts.at_most(scale.n_real),
                inception=self.inception,
            ),
            n_fake=scale.n_fake,
            class_count=len(self.facts.classes),
        )

    def report(self, scale: Scale, workspace: Workspace) -> Report:
        found = {
            row.name: [workspace.finished(judge) for judge in self.judges(row, scale)] for row in self.rows()
        }
        trainings = [judge.train for row in self.rows() for judge in self.judges(row, scale)]
        names = _extractors(found)
        sections = [section for name in names for section in self._sections(name, found)]
        runs = run_section(workspace, trainings)
        return Report(
            title=self.title,
            sections=(*sections, self._checks(found), runs),
            notes=(*self._notes(scale), *_cautions(found)),
            figures={
                "rows": [
                    {
                        "name": row.name,
                        "label": row.label,
                        "preset": row.preset,
                        "paper_fid": dict(published(*row.paper)) if row.paper else None,
                        "paper_is_comparable": self.comparable(scale),
                        "runs": [
                            {
                                "seed": judge.train.recipe.run.seed,
                                **workspace.finished(judge.train),
                                "judged": workspace.finished(judge),
                            }
                            for judge in self.judges(row, scale)
                        ],
                    }
                    for row in self.rows()
                ]
            },
            plots=tuple(plot for name in names if (plot := self._plot(name, found)) is not None),
            findings=self._findings(found),
        )

    def _findings(self, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Finding, ...]:
        rows = {row.name: row for row in self.rows()}
        pairs = [(rows[a], rows[b]) for a, b in self.claims if a in rows and b in rows]
        return known(
            distance_finding((a.label, b.label), (found[a.name], found[b.name]), (a.paper, b.paper))
            for a, b in pairs
        )

    def _sections(self, name: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Section]:
        classes = self.facts.classes
        what = (
            f"FID, CellGAN's protocol ({name})" if name == CELLGAN_EXTRACTOR else f"Frechet distance, {name}"
        )
        distances, kernels = [], []
        for row in self.rows():
            runs = [_of_extractor(run, name) for run in found[row.name]]
            paper = published(*row.paper) if row.paper else {}
            distances.append(
                (
                    row.label,
                    *(cell(_figures(runs, slug, "frechet_distance")) for slug in classes),
                    cell(_figures(runs, "mean", "frechet_distance")),
                    cell(_figures(runs[:1], "mean", "floor")),
                    _blocked_floor(runs, classes),
                    _own_class_wins(runs, classes),
                    optional(paper.get("mean")),
                )
            )
            kernels.append(
                (
                    row.label,
                    *(cell(_scaled(_figures(runs, slug, "kid"))) for slug in classes),
                    cell(_scaled(_figures(runs, "mean", "kid"))),
                    cell(_scaled(_kid_floors(runs[:1], classes))),
                    cell(_figures(runs, "mean", "precision"), ".2f"),
                    cell(_figures(runs, "mean", "recall"), ".2f"),
                    cell(_figures(runs, "mean", "coverage"), ".2f"),
                )
            )
        return [
            Section(
                title=what,
                header=("row", *classes, "mean", "floor", "other slides", "nearest own", "paper: FID"),
                rows=tuple(distances),
                note=(
                    "Floor: two random halves of the real images; other slides: series-blocked halves."
                    " Nearest own: classes whose images lie nearest to their own real ones, of all runs."
                ),
            ),
            Section(
                title=f"KID x 1000, {name}",
                header=("row", *classes, "mean", "floor", "precision", "recall", "coverage"),
                rows=tuple(kernels),
            ),
        ]

    def _checks(self, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Section:
        rows = []
        for row in self.rows():
            checks = [run.get("checks") for run in found[row.name]]
            luma = [
                cell([None if c is None else c[slug]["luma_delta"] for c in checks], "+.1f")
                for slug in self.facts.classes
            ]
            bars = [
                None if c is None else 100 * max(c[slug]["scale_bar_ratio"] for slug in self.facts.classes)
                for c in checks
            ]
            rows.append((row.label, *luma, cell(bars)))
        return Section(
            title="Luma of generated minus real images, and scale bars",
            header=("row", *self.facts.classes, "bars in the worst class, %"),
            rows=tuple(rows),
        )

    def _plot(self, name: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
        dots = []
        for row in self.rows():
            runs = [_of_extractor(run, name) for run in found[row.name]]
            values = [v for v in _figures(runs, "mean", "frechet_distance") if v is not None]
            floors = [v for v in _figures(runs, "mean", "floor") if v is not None]
            if values:
                mean, sd = mean_sd(values)
                dots.append(Dot(label=row.label, value=mean, sd=sd, reference=floors[0]))
        if not dots:
            return None
        return Plot(
            title=f"Mean Frechet distance, {name}",
            axis="lower is better",
            dots=tuple(dots),
            reference="floor: halves of the real images",
        )

    def comparable(self, scale: Scale) -> bool:
        """Whether the paper's FID was taken in this way: the same network, images, widths and counts."""
        as_published = scale.recipe_networks and scale.kimg >= PAPER.kimg
        return self.inception and self.images.are_the_papers() and as_published

    def _notes(self, scale: Scale) -> tuple[str, ...]:
        seen = {
            "blocks": "series blocks 1 to 4 were trained on, the fifth never seen",
            "all": "all images were trained on, those that judge too",
        }[self.images.scope]
        if self.comparable(scale):
            paper = "The paper's column compares with FID by CellGAN's protocol."
        else:
            paper = (
                "The paper's column is FID on Inception features, after 12.8 million images, on all images"
                " with their scale bars: compare the order of rows with it, never a number."
            )
        return (
            f"Scale bars {self.images.bars}, near-duplicates"
            f" {'removed' if self.images.deduplicate else 'kept'}; {seen}.",
            "The last state of each run is judged. All rows of a table saw equally many images.",
            "EfficientNet-Lite0 guides projected discriminators and flatters them; none knows Lite2.",
            "A Frechet distance falls with the number of images: read each beside its floor, rank by KID.",
            paper,
        )


def _cautions(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    """What to think of the order of rows that have hardly learned."""
    covered = []
    for runs in found.values():
        figures = _figures([_of_extractor(run, PRIMARY_JUDGE) for run in runs], "mean", "coverage")
        if values := [value for value in figures if value is not None]:
            covered.append(mean_sd(values)[0])
    if not covered or max(covered) >= LEARNED_COVERAGE:
        return ()
    return (
        f"No row has learned to draw these images yet: the best covers {100 * max(covered):.1f} % of the real"
        " ones. Their order says how trainings begin, not how they end.",
    )


def _extractors(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Names of the judges, the one that no discriminator knows first."""
    for runs in found.values():
        for run in runs:
            if run["extractors"]:
                names = list(run["extractors"])
                return sorted(names, key=lambda name: (name != PRIMARY_JUDGE, names.index(name)))
    return []


def _of_extractor(run: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return run["extractors"][name] if run["extractors"] else None


def _figures(runs: Sequence[Mapping[str, Any] | None], of: str, figure: str) -> list[float | None]:
    """A figure of a class, or of `mean`, in every run; None where a run left no generator."""
    values: list[float | None] = []
    for run in runs:
        part = None if run is None else run["mean"] if of == "mean" else run["classes"][of]
        values.append(None if part is None else part[figure])
    return values


def _kid_floors(runs: Sequence[Mapping[str, Any] | None], classes: Sequence[str]) -> list[float | None]:
    """Mean over classes, per run."""
    floors: list[float | None] = []
    for run in runs:
        values = [] if run is None else [run["classes"][slug]["kid_floor"] for slug in classes]
        floors.append(sum(values) / len(values) if values and None not in values else None)
    return floors


def _blocked_floor(runs: Sequence[Mapping[str, Any] | None], classes: Sequence[str]) -> str:
    run = next((run for run in runs if run is not None), None)
    values = [] if run is None else [run["classes"][slug]["floor_blocked"] for slug in classes]
    return NONE if not values or None in values else f"{sum(values) / len(values):.1f}"


def _own_class_wins(runs: Sequence[Mapping[str, Any] | None], classes: Sequence[str]) -> str:
    nearest = [
        min(run["classes"][slug]["distance_to"], key=run["classes"][slug]["distance_to"].__getitem__) == slug
        for run in runs
        if run is not None
        for slug in classes
    ]
    return f"{sum(nearest)}/{len(nearest)}" if nearest else NONE


def _scaled(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else KID_SCALE * value for value in values]
