"""OpenVINO, imported without the part of it that reports its use to its vendor."""

import importlib
import sys
from types import ModuleType
from typing import Any, Final

_REPORTING_PART: Final = "openvino.tools.ovc"
"""The model converter. Importing it, which importing `openvino` tries, sends an event over the network and
writes an identifier below the home directory. Without it everything but conversion works."""


def load_openvino() -> Any:
    """The module `openvino`. Raises ImportError where it is not installed."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    withheld: dict[str, ModuleType | None] = {_REPORTING_PART: None}  # None: importing it is an ImportError
    sys.modules.update(withheld)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    finally:
        sys.modules.pop(_REPORTING_PART, None)


def load_operations() -> Any:
    """OpenVINO's operations. Raises ImportError where it is not installed."""
    load_openvino()
    return importlib.import_module("openvino.opset15")
