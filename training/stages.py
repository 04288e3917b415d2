"""Progress of long work in named stages, one bar each."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from training.consoles import open_console
from training.evaluation.reference import Progress as Tell


@contextmanager
def stage_bars() -> Iterator[Tell]:
    """A function to be told (stage, done, of how many); bars go to stderr, a stage's at its first word."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bars = Progress(*columns, console=open_console(err=True))
    tasks: dict[str, TaskID] = {}
    furthest: dict[str, int] = {}

    def tell(stage: str, done: int, total: int) -> None:
        bars.start()
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        furthest[stage] = max(done, furthest.get(stage, 0))
        bars.update(tasks[stage], completed=furthest[stage])

    try:
        yield tell
    finally:
        if tasks:  # bars that never began would still end with an empty line
            bars.stop()
