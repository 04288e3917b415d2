"""The commands that the documents show, one by one, as a reader would type them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ADDRESS = "http://127.0.0.1:8000"
"""What the documents call the service."""

_BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s+#.*$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A command line of a page, continued lines joined, its comment away. program: `curl` or `masan`."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text}"

    @property
    def program(self) -> str:
        return self.text.partition(" ")[0]


def examples(page: Path, *programs: str) -> Iterator[Example]:
    """The page's fenced lines that begin with one of the programs, from top to bottom."""
    for block in _BLOCK.findall(page.read_text()):
        for line in _COMMENT.sub("", re.sub(r"\\\n\s*", "", block)).splitlines():
            if line.strip().startswith(tuple(f"{program} " for program in programs)):
                yield Example(page, line.strip())
