"""One line that says what a benchmark ran on; a figure without it is not written down."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def hardware_line() -> str:
    """Processor, cores this process may use, system, torch where it is installed, and the date."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [_processor(), f"{cores} cores", f"{platform.system()} {platform.machine()}"]
    parts.append(f"Python {platform.python_version()}")
    try:
        import torch
    except ImportError:
        pass
    else:
        parts.append(f"torch {torch.__version__}")
        if torch.cuda.is_available():
            parts.append(torch.cuda.get_device_name())
    parts.append(datetime.now(UTC).date().isoformat())
    return ", ".join(parts)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    print(hardware_line())
