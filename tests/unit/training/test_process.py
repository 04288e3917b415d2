import os
import signal
import subprocess
import sys

import pytest

from training.process import StopSignals


def test_prepared_process_flushes_denormals_and_sets_threads() -> None:
    code = (
        "import torch; from training.process import prepare_process; small = torch.tensor([1e-40]);"
        "print(bool((small * 1.0 != 0).item())); prepare_process(1);"
        "print(bool((small * 1.0 != 0).item()), torch.get_num_threads())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "False", "1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_is_noted_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with StopSignals() as signals:
        assert not signals.received
        os.kill(os.getpid(), number)
        assert signals.received

    assert signal.getsignal(number) is before
