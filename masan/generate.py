"""The main job at a terminal: ask, follow, save, show; used by `masan generate` and `masan demo`."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from masan.archive import CONTACT_SHEET, MANIFEST, SavedJob, check_folder, prepare_folder, unpack
from masan.client import Client, Job
from masan.contact_sheet import make_contact_sheet
from masan.errors import ApiError


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """What to ask for and where to put it. None: the server chooses. `replace` an earlier job's images.

    walk_to_seed: the images are steps of a walk to that seed's first, which no gate may judge.
    """

    class_slug: str
    n: int
    output: Path
    seed: int | None = None
    walk_to_seed: int | None = None
    truncation: float | None = None
    model: str | None = None
    gate: str | None = None
    image_format: str | None = None
    quality: int | None = None
    priority: str | None = None
    deadline_s: int | None = None
    metadata: dict[str, str] | None = None
    replace: bool = False


@dataclass(slots=True)
class Timing:
    """When things happened, in seconds of the monotonic clock."""

    asked: float
    first_image: float | None = None
    last_image: float | None = None
    job_id: str = ""

    def note(self, job: Job) -> None:
        """Take in a state of the job as it is seen."""
        now = time.monotonic()
        self.job_id = job.id
        if job.done and self.first_image is None:
            self.first_image = now
        if job.status == "succeeded":
            self.last_image = now

    def describe(self, since: float, what: str) -> str:
        """Such as `first image 2.2 s, last image 5.8 s after the request`."""
        first, last = (self.first_image or since) - since, (self.last_image or since) - since
        return f"first image {first:.1f} s, last image {last:.1f} s after {what}"

    def speed(self, n: int) -> float:
        """Images per second from the request to the last image."""
        return n / max((self.last_image or self.asked) - self.asked, 1e-9)


def generate_to_folder(
    client: Client, request: GenerateRequest, console: Console, check: Callable[[], None]
) -> tuple[SavedJob, Timing]:
    """Ask for the images, wait, and save them, their manifest and a contact sheet in the output folder.

    `check` is called while waiting and may raise.

    Raises OutputFolderError before anything is asked for if the folder holds something else.
    """
    check_folder(request.output, replace=request.replace)
    timing = Timing(asked=time.monotonic())
    job = client.generate(
        request.class_slug,
        request.n,
        seed=request.seed,
        walk_to_seed=request.walk_to_seed,
        truncation=request.truncation,
        model=request.model,
        gate=request.gate or (None if request.walk_to_seed is None else "off"),
        image_format=request.image_format,
        quality=request.quality,
        priority=request.priority,
        deadline_s=request.deadline_s,
        metadata=request.metadata,
    )
    console.print(
        f"Job {job.id}: {job.n} {request.class_slug} images of {job.model}, seed {job.seed}", soft_wrap=True
    )

    def note(now: Job) -> None:
        check()
        timing.note(now)

    job = follow(client, job, console, note)
    saved = _save(client, job, request, console)
    sheet = request.output / CONTACT_SHEET
    make_contact_sheet(saved.images, _title(saved), sheet)
    console.print(
        f"{job.n} images, {timing.speed(job.n):.1f} images/s; {timing.describe(timing.asked, 'the request')}",
        style="bold",
    )
    for what, path in (
        ("images", saved.images[0].parent),
        ("manifest", request.output / MANIFEST),
        ("picture", sheet),
    ):
        console.print(f"  {what:<9} {path}", soft_wrap=True)
    return saved, timing


def parse_metadata(texts: list[str] | None) -> dict[str, str] | None:
    """Name -> text from `NAME=TEXT`. Raises ValueError."""
    pairs = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise ValueError(f"--metadata {text!r} is not NAME=TEXT, such as study=b7")
        pairs[name] = value
    return pairs or None


def describe_saved(saved: SavedJob, timing: Timing) -> dict[str, Any]:
    """What `masan generate --json` prints."""
    first, n = saved.rows[0], len(saved.rows)
    return {
        "job": timing.job_id,
        "folder": str(saved.folder),
        "n": n,
        "seed": first["seed"],
        "checkpoint": first["checkpoint"],
        "images_per_second": round(timing.speed(n), 2),
        "manifest": str(saved.folder / MANIFEST),
        "contact_sheet": str(saved.folder / CONTACT_SHEET),
        "images": [str(image) for image in saved.images],
    }


def print_quality(client: Client, class_slug: str, model: str | None, console: Console) -> None:
    """The class's figures in the checkpoint's report, the real images' floor beside each."""
    try:
        report = client.report(class_slug, model)
    except ApiError as error:
        console.print(f"No quality figures: {error}", style="yellow")
        return
    table = Table(
        title=f"Quality of {class_slug} images (lower is nearer to the real images)", title_justify="left"
    )
    for heading in ("extractor", "distance", "this checkpoint", "real floor", "real / generated images"):
        table.add_column(heading)
    for extractor in (report, *(report.get("judges") or ())):
        figures = (extractor.get("classes") or {}).get(class_slug)
        if figures:
            _add_figures(table, str(extractor.get("extractor")), figures)
    console.print(table)


def _add_figures(table: Table, extractor: str, figures: dict[str, Any]) -> None:
    counts = f"{figures.get('n_real')} / {figures.get('n_fake')}"
    fid = figures.get("fid")
    name, value = ("FID", fid) if fid is not None else ("Frechet distance", figures.get("frechet_distance"))
    table.add_row(extractor, name, _number(value), _number(figures.get("floor")), counts)
    spread = f" ± {_number(figures['kid_sd'], 4)}" if figures.get("kid_sd") is not None else ""
    table.add_row(
        "", "KID", _number(figures.get("kid"), 4) + spread, _number(figures.get("kid_floor"), 4), ""
    )


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


class _ImagesPerSecond(ProgressColumn):
    """The server's own speed figure while it has one, else the bar's."""

    def render(self, task: Task) -> Text:
        speed = task.fields.get("speed") or task.finished_speed or task.speed
        return Text(f"{speed:.1f} images/s" if speed else "- images/s", style="progress.data.speed")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )


def follow(
    client: Client, job: Job, console: Console, on_progress: Callable[[Job], None] = lambda _: None
) -> Job:
    """Wait for a job with a progress bar; `on_progress` gets every state seen and may raise."""
    with _progress(console) as progress:
        task = progress.add_task("Generating", total=job.n, completed=job.done)

        def show(now: Job) -> None:
            on_progress(now)
            progress.update(task, completed=now.done, speed=now.images_per_second)

        return client.wait(job, show)


def _save(client: Client, job: Job, request: GenerateRequest, console: Console) -> SavedJob:
    """Fetch and check the archive beside the folder first: an earlier job's images go when ours are here."""
    folder = request.output.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = tempfile.TemporaryDirectory(prefix=f".{folder.name}-download-", dir=folder.parent)
    with aside as download, _progress(console) as progress:
        task = progress.add_task("Saving    ", total=job.n)
        archive = client.download(job, Path(download) / "result.zip")
        prepare_folder(request.output, replace=request.replace)
        return unpack(archive, request.output, on_image=lambda: progress.advance(task))


def _title(saved: SavedJob) -> str:
    first = saved.rows[0]
    classes = "+".join(sorted({row["class_slug"] for row in saved.rows}))
    return f"{first['checkpoint']}   {classes}   seed {first['seed']}   {len(saved.rows)} synthetic images"
