import logging

import pytest
import torch
from torch import Tensor

from training.compilation import compiled


def double(x: Tensor) -> Tensor:
    return (x + 1).relu() * 2


def test_without_a_compiler_it_warns_once_and_computes_the_same(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    x = torch.linspace(-2, 2, 7, requires_grad=True)
    function = compiled(double)

    with caplog.at_level(logging.WARNING):
        results = [function(x) for _ in range(3)]

    assert all(torch.equal(result, double(x)) for result in results)
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("torch.compile does not work here, training goes on without it: ")
    assert "\n" not in message


def test_errors_of_the_function_itself_are_not_hidden() -> None:
    def broken(x: Tensor) -> Tensor:
        return x @ torch.zeros(5, 5)

    with pytest.raises(RuntimeError):
        compiled(broken)(torch.zeros(3, 3))
