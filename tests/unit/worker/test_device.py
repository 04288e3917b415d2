import pytest
import torch

from worker.device import choose_device, device_errors, device_label, retry_once_out_of_memory
from worker.errors import GenerationError, GpuLostError, GpuMemoryError, NonFiniteImageError


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="'cuda:3': torch sees 0 GPUs"):
        choose_device("cuda:3")


def test_the_cpu_is_called_so() -> None:
    assert device_label(choose_device("cpu")) == "cpu"


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (FloatingPointError("image x"), NonFiniteImageError),
        (torch.OutOfMemoryError("CUDA out of memory"), GpuMemoryError),
        (torch.AcceleratorError("an illegal memory access"), GpuLostError),
        (RuntimeError("shapes"), GenerationError),
    ],
)
def test_what_torch_raises_becomes_ours(raised: Exception, told: type[Exception]) -> None:
    with pytest.raises(told) as caught, device_errors():
        raise raised

    assert type(caught.value) is told
    assert caught.value.__cause__ is raised


def test_out_of_memory_is_tried_once_more() -> None:
    attempts: list[int] = []
    counted: list[int] = []

    def run() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "drawn"

    assert retry_once_out_of_memory(run, lambda: counted.append(1)) == "drawn"
    assert (len(attempts), len(counted)) == (2, 1)


def test_out_of_memory_twice_is_given_up() -> None:
    def run() -> str:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        retry_once_out_of_memory(run, lambda: None)
