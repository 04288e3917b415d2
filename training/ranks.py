"""Several processes, one per device, that train one network together: `torchrun` starts them.

Every rank holds the whole state and takes its share of each batch; gradients are averaged before a step. The
networks run as functions of normalised weights, so gradients are averaged here, in one message, and not by
`DistributedDataParallel`, whose hooks sit on a module's own forward.
"""

import gc
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from training.errors import ConfigInvalidError


@dataclass(frozen=True)
class Ranks:
    """This process's place among `size`; by default it is alone, and no method changes anything."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls, device_type: str) -> Self:
        """Meet the processes that `torchrun` started; alone if it started none. Call `leave` at the end."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))

    def leave(self) -> None:
        """Undo `join`: a process that ends with its threads of communication running is aborted."""
        if dist.is_initialized():
            dist.destroy_process_group()
            gc.collect()  # what still refers to the group would keep its threads

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and shows progress."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """This rank's images of a global batch. Raises ConfigInvalidError if it does not divide."""
        if batch % self.size:
            raise ConfigInvalidError(f"optimizer.batch {batch} does not divide among {self.size} processes")
        return batch // self.size

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the ranks."""
        if self.size > 1:
            self.average([p.grad for p in parameters if p.grad is not None])

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks, in place, in one message. All of one device."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        dist.all_reduce(flat)
        parts = flat.div_(self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, x: Tensor) -> Tensor:
        """[n, ...] of every rank as [size * n, ...], with gradients to each rank's own."""
        if self.size == 1:
            return x
        gathered: Tensor = _Gather.apply(x.contiguous(), self)
        return gathered

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is up at any rank; all ranks must ask."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        dist.all_reduce(flags)
        return bool(flags > 0)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    """All ranks' rows; a row's gradient is the sum of what every rank has for it."""

    @staticmethod
    def forward(context: Any, x: Tensor, ranks: Ranks) -> Tensor:
        context.ranks = ranks
        parts = [torch.empty_like(x) for _ in range(ranks.size)]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total.chunk(context.ranks.size)[context.ranks.rank], None
