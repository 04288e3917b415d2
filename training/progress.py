"""What a person sees of a running training: a bar over images, or a line per tick without a terminal."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn

from training.consoles import open_console
from training.loop import Tick


class TrainingProgress:
    """A bar on stderr with images seen, rate, losses, and how many images there will be at the end, and when.

    total: images to see. end: when the time budget ends, by `time.monotonic`, or infinity. shown: False for
    all ranks but the first.
    """

    def __init__(
        self, recipe: str, total: int, seen: int, end: float = float("inf"), *, shown: bool = True
    ) -> None:
        self.total = total
        self.end = end
        self.console = open_console(err=True, quiet=not shown)
        columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}")]
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task(recipe, total=total, completed=seen, status="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, tick: Tick) -> None:
        """Show a tick."""
        status = f"{self.describe(tick)}  {_losses(tick)}"
        self.bar.update(self.task, completed=tick.images_seen, status=status)
        if not self.console.is_terminal:
            self.console.print(status, soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, soft_wrap=True, highlight=False)

    def describe(self, tick: Tick) -> str:
        """`12,288 of 1,000,000 images, 18.8/s, 40,000 in 25:00`: the last is what it ends with, and when."""
        rate = max(tick.images_per_second, 1e-9)
        left_s = max(min((self.total - tick.images_seen) / rate, self.end - time.monotonic()), 0.0)
        at_end = min(tick.images_seen + round(rate * left_s), self.total)
        seen = f"{tick.images_seen:,} of {self.total:,} images"
        return f"{seen}, {tick.images_per_second:.1f}/s, {at_end:,} in {_clock(left_s)}"


def _losses(tick: Tick) -> str:
    shown = [name for name in ("loss_D", "loss_G") if name in tick.losses]
    return "  ".join(f"{name} {tick.losses[name]:.3f}" for name in shown)


def _clock(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02d}:{int(seconds) % 60:02d}" if hours else f"{minutes}:{int(seconds) % 60:02d}"
