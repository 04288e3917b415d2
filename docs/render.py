"""Writes the pages that are made of the code: `python docs/render.py`, or `make docs`.

A test compares each of them with what is rendered, so that none can fall behind.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from model_store.builtin import builtin_store
from model_store.model_card import model_card
from model_store.report import read_report

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGES = {
    "masan": "The [command](cli.md), the [client](python.md), the embedded stack.",
    "service": "The HTTP process: requests in, jobs out. Never loads torch.",
    "worker": "Takes chunks from the queue; draws, judges, encodes and writes images.",
    "model_store": "Checkpoints: manifests, the store, the networks, what they are judged by.",
    "training": "Data, discriminators, losses, the trainer, evaluation, the paper's tables.",
}
SCRIPTS = {
    "benchmarks": "What figures of speed are made with; `make bench` runs them all.",
    "examples": "Programs to start from; tests run them.",
    "deploy": "What runs it in earnest: [compose](operations.md), [Kubernetes](kubernetes.md), systemd,"
    " Prometheus, Grafana.",
}


def pages() -> dict[Path, str]:
    """Every page that is made, and what stands in it."""
    return {DOCS / "model-card.md": _model_card(), DOCS / "modules.md": _modules()}


def _model_card() -> str:
    """Of the newest checkpoint that ships."""
    store = builtin_store()
    name = store.names()[0]
    checkpoint = store.resolve(f"{name}@{store.versions(name)[-1]}")
    seen = tomllib.loads((DOCS / "seen.toml").read_text()).get(checkpoint.reference, {}).get("text", "")
    card = model_card(checkpoint.manifest, read_report(store, checkpoint), seen=seen)
    heading, _, rest = card.partition("\n\n")
    made = (
        "The checkpoint that ships, as its manifest and its report have it: `make docs` makes this page,\n"
        "`masan models show NAME@VERSION --card` that of any other."
    )
    return f"{heading}\n\n{made}\n\n{rest}"


def _modules() -> str:
    parts = [
        "# Modules",
        "Every file in a line, the first of its docstring; `make docs` makes this page. What they do\n"
        "together and who may import whom: [architecture.md](architecture.md).",
    ]
    for folder, what in (PACKAGES | SCRIPTS).items():
        parts += [f"## `{folder}/`", what, "\n".join(_lines(folder))]
    return "\n\n".join(parts) + "\n"


def _lines(folder: str) -> Iterator[str]:
    yield "| file | |"
    yield "| --- | --- |"
    for path in sorted((ROOT / folder).rglob("*.py"), key=_place):
        name = path.relative_to(ROOT / folder).as_posix()
        doc = ast.get_docstring(ast.parse(path.read_text()))
        if doc:
            sentence = " ".join(doc.partition("\n\n")[0].split()).replace("|", "\\|")
            yield f"| `{name.removesuffix('__init__.py') or './'}` | {sentence} |"


def _place(path: Path) -> tuple[str, bool, str]:
    """A folder after the files beside it, its own line first."""
    return str(path.parent), path.name != "__init__.py", path.name


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
