"""The formats: each has a name for clients, and parquet only where it can be made."""

import subprocess
import sys
from typing import get_args

from service.archives.formats import FORMATS, archive_formats
from worker.contract.messages import ArchiveFormat


def test_every_format_has_a_media_type_and_a_suffix() -> None:
    assert tuple(FORMATS) == get_args(ArchiveFormat)


def test_parquet_is_there_with_pyarrow() -> None:
    assert archive_formats() == ("zip", "tar", "npz", "parquet")


def test_parquet_is_not_there_without_pyarrow() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from service.archives.formats import archive_formats\n"
        "print(archive_formats())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "('zip', 'tar', 'npz')"
