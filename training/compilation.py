"""`torch.compile` where it can work; one warning and the plain function where it cannot."""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` fused for fixed shapes at its first call, which takes up to a minute.

    Without a working compiler (g++ or clang++ for a CPU, Triton and a C compiler for a GPU) it warns once and
    runs `function` as it is: the same numbers, more slowly. The function must be free of side effects.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import, needed by few

    fused = torch.compile(function, dynamic=False)
    usable = True

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal usable
        if usable:
            try:
                return fused(*args, **kwargs)
            except TorchDynamoException as error:
                usable = False
                reason = str(error).strip().splitlines()[0]
                logger.warning("torch.compile does not work here, training goes on without it: %s", reason)
        return function(*args, **kwargs)

    return call
