"""The process of a rank: `python -m worker.engine.ranks.rank FD`, where FD is its connection to the leader.

It computes parts of passes with replicas of the leader's models. It knows no requests, queues or files.
"""

import ctypes
import gc
import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch import distributed as dist

from models.kernels.support import fuse_transformer
from models.transformer import Transformer
from worker.device import free_cached_memory, is_out_of_memory
from worker.engine.passes.graphs import StepGraphs
from worker.engine.ranks.messages import (
    ComputePart,
    DropReplica,
    Join,
    LeaderMessage,
    Leave,
    LoadReplica,
    PartComputed,
    PartFailed,
    RankMessage,
    SendOutputs,
)
from worker.engine.ranks.packing import empty_buffer, unpack
from worker.engine.ranks.part import PassInputs, compute_part, gather_outputs
from worker.engine.ranks.process_group import join_process_group, leave_process_group
from worker.engine.ranks.replica import LEADER, receive_replica
from worker.engine.ranks.split import Split

_PR_SET_PDEATHSIG = 1


class Rank:
    def __init__(self, join: Join, connection: "Connection[LeaderMessage, RankMessage]") -> None:
        self._device = torch.device(join.device)
        self._cuda_graphs = join.cuda_graphs and self._device.type == "cuda"
        self._connection = connection
        self._messages: SimpleQueue[RankMessage] = SimpleQueue()
        self._replicas: dict[int, Transformer] = {}
        self._graphs: WeakKeyDictionary[Transformer, StepGraphs] = WeakKeyDictionary()
        threading.Thread(target=self._receive, name="connection", daemon=True).start()

    def _receive(self) -> None:
        """Receive messages, and end the process with its leader, whatever the main thread does meanwhile."""
        while True:
            try:
                self._messages.put(self._connection.recv())
            except (EOFError, OSError):
                os._exit(0)

    @torch.no_grad()
    def run(self) -> None:
        while True:
            match self._messages.get():
                case LoadReplica() as message:
                    self._replicas[message.replica] = receive_replica(message, self._device, fuse_transformer)
                case DropReplica(replica):
                    del self._replicas[replica]
                    gc.collect()  # fused operations refer to their transformer, and it to them
                    free_cached_memory()
                case Leave():
                    leave_process_group()
                case ComputePart() as message:
                    self._compute(message)

    def _compute(self, message: ComputePart) -> None:
        transformer = self._replicas[message.replica]
        buffer = empty_buffer(message.inputs, self._device)
        dist.broadcast(buffer, LEADER)
        inputs = PassInputs._make(unpack(buffer, message.inputs))
        if message.split.axis == "frames":
            outputs = compute_part(transformer, inputs, message.split, None)
            gather_outputs(transformer, inputs, message.split, outputs)
        elif (rows := self._compute_rows(transformer, inputs, message.split)) is not None:
            gather_outputs(transformer, inputs, message.split, rows.outputs)

    def _compute_rows(self, transformer: Transformer, inputs: PassInputs, split: Split) -> "_Rows | None":
        """Compute rows and report it. None when another process of the group could not compute its part."""
        outputs: Tensor | None = None
        answer: LeaderMessage = PartComputed()
        try:
            outputs = compute_part(transformer, inputs, split, self._graphs_of(transformer))
        except torch.AcceleratorError:
            raise  # the device is lost: the process ends, and the group with it
        except Exception as error:
            answer = PartFailed(repr(error), is_out_of_memory(error))
        if isinstance(answer, PartFailed) and answer.is_out_of_memory:
            self._graphs.clear()
            free_cached_memory()
        self._connection.send(answer)
        return _Rows(outputs) if isinstance(self._messages.get(), SendOutputs) else None

    def _graphs_of(self, transformer: Transformer) -> StepGraphs | None:
        return self._graphs.setdefault(transformer, StepGraphs()) if self._cuda_graphs else None


@dataclass(frozen=True)
class _Rows:
    outputs: Tensor | None
    """None without a row."""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the leader drains first, and closes the connection then
    connection: Connection[LeaderMessage, RankMessage] = Connection(int(sys.argv[1]))
    _die_with_parent()
    try:
        join = connection.recv()
    except EOFError:
        return
    assert isinstance(join, Join)
    device = torch.device(join.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank = Rank(join, connection)
    join_process_group(join.rank, join.num_ranks, join.store, device, join.timeout_seconds)
    rank.run()


def _die_with_parent() -> None:
    """Let the kernel kill this process when its leader dies, even if the interpreter hangs. On Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


if __name__ == "__main__":
    main()
