"""Messages between a leader and its ranks. Tensors do not travel with them, but through torch.distributed."""

from dataclasses import dataclass

import torch

from models.config import TransformerConfig
from worker.engine.ranks.packing import Layout
from worker.engine.ranks.split import Split


@dataclass(frozen=True)
class Join:
    """The first message to a rank.

    Attributes:
        rank: 1 for the first one; the leader is rank 0.
        store: File in which the processes of the group find each other.
        timeout_seconds: A collective operation that takes longer ends the process.
    """

    rank: int
    num_ranks: int
    device: str
    store: str
    timeout_seconds: float
    cuda_graphs: bool


@dataclass(frozen=True)
class Weight:
    """A parameter or a buffer, whose numbers follow by broadcast."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class LoadReplica:
    """Build a transformer and receive its weights."""

    replica: int
    config: TransformerConfig
    weights: tuple[Weight, ...]
    is_fused: bool


@dataclass(frozen=True)
class DropReplica:
    replica: int


@dataclass(frozen=True)
class ComputePart:
    """Receive the inputs of a pass by broadcast, and compute this rank's part of it.

    A pass that is split by rows is answered with `PartComputed` or `PartFailed`, and the leader then sends
    `SendOutputs` or `DropOutputs`. One that is split by frames cannot be given up half-way: its outputs are sent at
    once, and an error ends the group.
    """

    replica: int
    inputs: Layout
    split: Split


@dataclass(frozen=True)
class SendOutputs:
    """All processes of the group have computed their parts: gather them."""


@dataclass(frozen=True)
class DropOutputs:
    """A process of the group has failed: nothing is gathered."""


@dataclass(frozen=True)
class Leave:
    """Leave the torch.distributed group, as the leader does at the same time. The connection is closed next."""


@dataclass(frozen=True)
class PartComputed:
    """On CUDA, the device has been given the work and may still compute it."""


@dataclass(frozen=True)
class PartFailed:
    reason: str
    is_out_of_memory: bool


RankMessage = Join | LoadReplica | DropReplica | ComputePart | SendOutputs | DropOutputs | Leave
LeaderMessage = PartComputed | PartFailed
