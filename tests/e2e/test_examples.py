"""The commands that the documents show, run against a running stack: from the top of a page to its end."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from masan import Client
from tests.documents import ADDRESS, PAGES, Example, examples
from tests.e2e.conftest import needs_own_stack

LEFT_OUT = {
    r"\b(DIR|FILE|STORE|RUN|FILES)\b|runs/": "needs what only the reader has",
    r"my-smears|b-all@2 |b-all@3|rollback": "needs a checkpoint of the reader's",
    r"\$KEY": "needs a stack with keys",
    r"^masan up": "has been done",
    r"^masan (train|publish|evaluate|reproduce|reference)\b(?!.*--help)": "takes minutes",
    r"^masan report\b": "tests/e2e/test_reports.py",
    r"xargs": "needs masan on PATH",
}
FEWER = ((r"\bn=\d+", "n=4"), (r"-n \d+", "-n 4"), (r'"(pro_b|pre_b)": \d+', r'"\1": 2'))
JOB = re.compile(r"job_\.\.\.|\bJOB\b|job_[0-9A-Z]{26}")


def can_run(example: Example) -> bool:
    return not any(re.search(pattern, example.text) for pattern in LEFT_OUT)


RUNNING = [page for page in PAGES if any(map(can_run, examples(page, "curl", "masan")))]


@pytest.fixture(scope="module")
def archive(base_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with Client(base_url) as client:
        job = client.wait(client.submit("pro_b", 18))
        return client.download(job, tmp_path_factory.mktemp("made") / "out.zip")


@pytest.fixture
def folder(page: Path, archive: Path, tmp_path: Path) -> Path:
    """What a reader of the page has by then: an archive, under the names that it is given, and unpacked."""
    for name in ("out.zip", "pro_b-500.zip"):
        shutil.copy(archive, tmp_path / name)
    makes_out = any(each.text.startswith("masan generate") for each in examples(page, "masan"))
    with zipfile.ZipFile(archive) as unpacked:
        unpacked.extractall(tmp_path)
        if not makes_out:
            unpacked.extractall(tmp_path / "out")
    return tmp_path


class Reader:
    """Types a page's commands, in one folder, and knows the job that was asked for last."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder, self._job = url, folder, ""

    def type(self, text: str) -> None:
        for pattern, fewer in FEWER:
            text = re.sub(pattern, fewer, text)
        if JOB.search(text):
            self._wait()
        typed = JOB.sub(self._job, text.replace(ADDRESS, self._url))
        typed = re.sub(r"\bcurl ", "curl -fsS ", typed)
        masan = f"{sys.executable} -m masan.cli"
        done = subprocess.run(
            ["bash", "-c", re.sub(r"^masan\b", masan, typed)],
            cwd=self._folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._folder), "MASAN_URL": self._url},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{typed}\n{done.stdout}{done.stderr}"
        if "/generate" in typed and (made := JOB.search(done.stdout)):
            self._job = made[0]

    def _wait(self) -> None:
        """A reader looks until the job has succeeded; asks for one where the page has asked before."""
        with Client(self._url) as client:
            self._job = self._job or client.submit("pro_b", 4).id
            client.wait(self._job)


@needs_own_stack  # another one may want a key
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.name)
def test_a_page_s_commands_run(page: Path, base_url: str, folder: Path) -> None:
    reader = Reader(base_url, folder)

    for example in filter(can_run, examples(page, "curl", "masan")):
        reader.type(example.text)


def test_most_requests_are_run() -> None:
    requests = [each for page in PAGES for each in examples(page, "curl")]

    assert [str(each) for each in requests if not can_run(each) and "$KEY" not in each.text] == []
