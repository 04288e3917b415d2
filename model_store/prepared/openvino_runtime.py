"""OpenVINO: imported without the part that reports its use to its vendor, loaded where it does no harm."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

_REPORTING_PART: Final = "openvino.tools.ovc"
"""The model converter. Importing it, which importing `openvino` tries, sends an event over the network and
writes an identifier below the home directory. Without it everything but conversion works."""
_importing = threading.Lock()


def load_openvino() -> Any:
    """The module `openvino`. Raises ImportError where it is not installed."""
    with _importing:
        is_first = "openvino" not in sys.modules
        if is_first:
            sys.modules[_REPORTING_PART] = None  # type: ignore[assignment]  # so that importing it fails
        try:
            import openvino
        finally:
            if is_first:
                del sys.modules[_REPORTING_PART]
        return openvino


def compile_for_cpu(graph: Any, settings: dict[str, Any]) -> Any:
    """An `openvino.CompiledModel` of `graph`, an `openvino.Model`. Raises RuntimeError where that fails.

    OpenVINO's CPU plugin gives the thread that loads it a signal stack of its own, and frees it with the last
    network, in whichever thread that is: the next signal to the first one would then kill the process. So a
    thread loads it that ends at once and gets no signals.
    """
    openvino = load_openvino()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: openvino.Core().compile_model(graph, "CPU", settings)).result()


def load_operations() -> Any:
    """OpenVINO's operations. Raises ImportError where it is not installed."""
    load_openvino()
    import openvino.opset15 as operations

    return operations
