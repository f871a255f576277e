"""The frames of a pass on several processes. Each computes some frames; attention between frames exchanges tokens.

Linear layers, spatial attention and cross attention belong to a frame. Before attention between frames, every process
gets a share of the tokens, or of the heads, of all frames (`spread`). After it, the processes give back the results of
each other's frames (`collect`).

Shapes: B batch, T frames of all processes, S frames of this one, A an axis that is shared, a this process's share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class FrameSplit:
    """`counts` frames on each process of the default torch.distributed group, in order; this is process `rank`."""

    counts: tuple[int, ...]
    rank: int

    @property
    def num_frames(self) -> int:
        """T."""
        return sum(self.counts)

    @property
    def part(self) -> slice:
        """The frames of this process."""
        return part_of(self.counts, self.rank)

    def shares(self, total: int) -> tuple[int, ...]:
        """`total` tokens or heads for each process; the numbers differ by one at most."""
        return divide(total, len(self.counts))

    def spread(self, x: Tensor, axis: int, shares: Sequence[int]) -> Pending:
        """(B, S, ..., A, ...) -> (B, T, ..., a, ...). `axis` is that of A, and `shares` are the a of each process."""
        shape = list(x.shape)
        shape[axis] = shares[self.rank]
        sent = _join([x.narrow(axis, start, size) for start, size in zip(_starts(shares), shares, strict=True)])
        received = [[shape[0], count, *shape[2:]] for count in self.counts]
        return _exchange(sent, [x.numel() // x.shape[axis] * size for size in shares], received, dim=1)

    def collect(self, y: Tensor, axis: int, shares: Sequence[int]) -> Pending:
        """(B, T, ..., a, ...) -> (B, S, ..., A, ...): the inverse of `spread`."""
        shape = list(y.shape)
        shape[1] = self.counts[self.rank]
        is_packed = y.shape[0] == 1 and y.is_contiguous()  # the frames of each process then lie side by side
        sent = y.flatten() if is_packed else _join(list(torch.split(y, list(self.counts), dim=1)))
        received = [[*shape[:axis], size, *shape[axis + 1 :]] for size in shares]
        return _exchange(sent, [y.numel() // self.num_frames * count for count in self.counts], received, dim=axis)


@dataclass(frozen=True)
class Pending:
    """An exchange in progress. On CUDA the host does not wait for it."""

    wait: Callable[[], Tensor]


def divide(total: int, num_parts: int) -> tuple[int, ...]:
    """`total` in parts that differ by one at most, the larger ones first."""
    share, rest = divmod(total, num_parts)
    return tuple(share + (part < rest) for part in range(num_parts))


def part_of(counts: Sequence[int], index: int) -> slice:
    """The range of a part, where parts of these sizes follow each other."""
    start = sum(counts[:index])
    return slice(start, start + counts[index])


def _exchange(sent: Tensor, sizes: list[int], shapes: Sequence[Sequence[int]], dim: int) -> Pending:
    """Send `sizes` numbers of `sent` to each process, and receive tensors of `shapes`, joined along `dim`."""
    received_sizes = [prod(shape) for shape in shapes]
    received = sent.new_empty(sum(received_sizes))
    work = dist.all_to_all_single(received, sent, received_sizes, sizes, async_op=True)

    def wait() -> Tensor:
        assert work is not None
        work.wait()
        parts = [
            part.view(list(shape)) for part, shape in zip(torch.split(received, received_sizes), shapes, strict=True)
        ]
        if all(size == 1 for size in shapes[0][:dim]):  # the parts lie side by side already
            return received.view([*shapes[0][:dim], sum(shape[dim] for shape in shapes), *shapes[0][dim + 1 :]])
        return torch.cat(parts, dim=dim)

    return Pending(wait)


def _join(parts: Sequence[Tensor]) -> Tensor:
    """The numbers of all parts one after the other, with one copy of each."""
    sizes = [part.numel() for part in parts]
    joined = parts[0].new_empty(sum(sizes))
    for place, part in zip(torch.split(joined, sizes), parts, strict=True):
        place.view(part.shape).copy_(part)
    return joined


def _starts(sizes: Sequence[int]) -> list[int]:
    return [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
