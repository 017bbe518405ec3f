"""Several processes that train one network together, as torchrun starts them: each takes its part of every batch.

Gradients are averaged over all clips of a batch, so a step is that of one process but for two things: batch norm and
the mean share of MACs in the penalty see the clips of their own process. Process 0 measures and writes; running batch
statistics are averaged after every epoch. All processes must see the same files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from dance_deploy.errors import InputError, OperationError

PATIENCE = timedelta(hours=6)  # process 0 measures while the others wait


class Ranks:
    """This process among all: rank of count. One process alone: every method does nothing."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        """Whether this process measures and writes."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Raise InputError where a batch is too small to be shared out."""
        if batch < 2 * self.count:
            whom = "batch norm" if self.count == 1 else f"{self.count} processes"
            raise InputError(f"--batch is {batch}, too few clips for {whom}; give at least {2 * self.count}")

    def check_clips(self, clips: int) -> None:
        """Raise InputError where an epoch's clips are too few to be shared out."""
        if clips < self.count:
            raise InputError(f"{clips} training clips are too few for {self.count} processes; start at most {clips}")

    def part(self, batch: list[int]) -> list[int]:
        """This process's part of a batch."""
        return batch[self.rank::self.count]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            with _spoken_with_all():
                dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Process 0 goes through the block before the others do."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        together = torch.cat([g.flatten() for g in gradients])
        with _spoken_with_all():
            dist.all_reduce(together)
        for gradient, part in zip(gradients, together.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))

    def sum_values(self, values: dict[str, float], device: torch.device) -> dict[str, float]:
        """Each value, summed over the processes."""
        if self.count == 1:
            return values
        numbers = torch.tensor(list(values.values()), dtype=torch.float32, device=device)
        with _spoken_with_all():
            dist.all_reduce(numbers)
        return dict(zip(values, numbers.tolist()))

    def average_buffers(self, model: nn.Module) -> None:
        """Replace each floating-point buffer by its mean over the processes."""
        if self.count == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                with _spoken_with_all():
                    dist.all_reduce(buffer)
                buffer.div_(self.count)


ALONE = Ranks()


@contextmanager
def _spoken_with_all() -> Iterator[None]:
    """One line for what torch raises where another process has gone."""
    try:
        yield
    except RuntimeError as error:
        raise OperationError("another process of this run has ended; see what it said") from error


def started_by_torchrun() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the other processes, where torchrun started several: gloo between CPUs, NCCL between GPUs."""
    if not started_by_torchrun():
        yield ALONE
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise OperationError("the processes of this run cannot join each other; start them with torchrun "
                             f"({str(error).splitlines()[0]})") from error
    try:
        ranks = Ranks(dist.get_rank(), dist.get_world_size())
        # one that ends while another still connects would leave it trying until patience is over
        ranks.wait()
        yield ranks
    finally:
        dist.destroy_process_group()
