"""A transformer on every rank: the leader's weights are broadcast, so that all compute with the same numbers."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributed as dist

from models.checkpoint.load import empty_transformer
from models.transformer import Transformer
from worker.engine.ranks.messages import LoadReplica, Weight

LEADER = 0


def describe_replica(replica: int, transformer: Transformer) -> LoadReplica:
    """The message that precedes `send_weights`."""
    weights = tuple(Weight(name, tuple(tensor.shape), tensor.dtype) for name, tensor in _weights(transformer))
    return LoadReplica(replica, transformer.config, weights, is_fused=transformer.fused_blocks is not None)


def send_weights(transformer: Transformer) -> None:
    for _, tensor in _weights(transformer):
        dist.broadcast(tensor.contiguous(), LEADER)


def receive_replica(message: LoadReplica, device: torch.device, fuse: Callable[[Transformer], None]) -> Transformer:
    """Receive what `send_weights` sends. `fuse` gives a transformer its fused operations."""
    transformer = empty_transformer(message.config)
    state = {}
    for weight in message.weights:
        tensor = torch.empty(weight.shape, dtype=weight.dtype, device=device)
        dist.broadcast(tensor, LEADER)
        state[weight.name] = tensor
    transformer.load_state_dict(state, assign=True)
    transformer = transformer.eval().requires_grad_(False)
    if message.is_fused:
        fuse(transformer)
    return transformer


def _weights(transformer: Transformer) -> list[tuple[str, Tensor]]:
    return [(name, tensor.detach()) for name, tensor in transformer.state_dict().items()]
