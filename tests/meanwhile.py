"""Something else that happens while a test waits."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def meanwhile(act: Callable[[], object], after_s: float = 0.0) -> Iterator[None]:
    """Do `act` in a thread, `after_s` seconds from now, while the block runs.

    The thread has ended when the block has: none is left to meet the closed clients and the next test's
    jobs. What `act` raises is raised here, unless the block itself failed.
    """

    def late() -> None:
        time.sleep(after_s)
        act()

    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(late)
        yield
        doing.result()
