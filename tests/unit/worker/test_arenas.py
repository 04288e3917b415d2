"""In processes of their own: the limit stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.arenas import ARENAS

_COUNT = """
import ctypes, sys, threading
from worker.arenas import share_arenas
if sys.argv[2] == "limited":
    assert share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
at_once = threading.Barrier(8)
def work():
    at_once.wait()
    libc.malloc(1000)
    at_once.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_threads_share_few_heaps(tmp_path: Path) -> None:
    heaps = {}
    for kind in ("limited", "free"):
        path = tmp_path / kind
        subprocess.run([sys.executable, "-c", _COUNT, str(path), kind], check=True, timeout=30)
        heaps[kind] = path.read_text().count("<heap nr=")

    assert heaps["limited"] <= ARENAS < heaps["free"]
