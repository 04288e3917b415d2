"""Other people's tools that our files are checked with; a test skips where one is not installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tool(name: str, comes_with: str) -> str:
    """Path of a program, ours or the system's; the test skips without it."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed; it comes with {comes_with}")
    return path


def run(*command: str | Path, **env: str) -> str:
    """Output of a command in the repository's root; the test fails with it if the command does."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
