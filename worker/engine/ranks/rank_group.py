"""The leader's view of its ranks: it starts them, gives them replicas of its models, and shares passes with them."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor
from torch import distributed as dist

from models.transformer import Transformer
from worker.engine.passes.graphs import StepGraphs
from worker.engine.ranks.messages import (
    ComputePart,
    DropOutputs,
    DropReplica,
    Join,
    PartFailed,
    RankMessage,
    SendOutputs,
)
from worker.engine.ranks.packing import layout_of, pack
from worker.engine.ranks.part import PassInputs, compute_part, gather_outputs
from worker.engine.ranks.process_group import join_process_group, leave_process_group
from worker.engine.ranks.rank_process import RankProcess
from worker.engine.ranks.replica import LEADER, describe_replica, send_weights
from worker.engine.ranks.split import PassShape, Split

logger = logging.getLogger(__name__)

# A pass that is shared by frames runs without CUDA graphs: with fewer tokens the host decides how long it takes.
MIN_FRAME_TOKENS = 16_384
# How long a failed operation waits for the end of the rank that caused it, to report that.
_END_SECONDS = 1.0


class RankFailedError(RuntimeError):
    """A rank could not compute its part of a pass. The group goes on."""


class RankOutOfMemoryError(torch.OutOfMemoryError):
    """The device of a rank had no memory for its part of a pass."""


def exit_process(reason: str) -> NoReturn:
    """End the leader: the supervisor starts the group anew, and the videos return to the queue."""
    logger.critical("%s; the worker exits to be restarted", reason)
    os._exit(1)


class RankGroup:
    """Not thread-safe: one thread makes all calls. `on_lost` is called from any thread, and should not return.

    `exact` remembers of each model whether its passes of a shape give the same bits when they are shared.
    """

    def __init__(
        self,
        devices: Sequence[torch.device],
        timeout_seconds: float,
        cuda_graphs: bool = True,
        on_lost: Callable[[str], object] = exit_process,
        min_frame_tokens: int = MIN_FRAME_TOKENS,
    ) -> None:
        """Start a rank on each device but the first, which is the leader's. Call `join` before the first pass.

        Passes of fewer rows than devices, and of at least `min_frame_tokens` tokens, are shared by frames.
        """
        self._devices = devices
        self.min_frame_tokens = min_frame_tokens
        self._timeout_seconds = timeout_seconds
        self._cuda_graphs = cuda_graphs
        self._end = on_lost
        self._folder = tempfile.TemporaryDirectory(prefix="framedit-ranks-", ignore_cleanup_errors=True)
        self._store = str(Path(self._folder.name) / "store")
        self._replicas: WeakKeyDictionary[Transformer, int] = WeakKeyDictionary()
        self._num_replicas = 0
        self.exact: WeakKeyDictionary[Transformer, dict[PassShape, bool]] = WeakKeyDictionary()
        self._dropped: list[int] = []
        self._ranks = [
            RankProcess(f"rank {rank} on {device}", self._on_lost) for rank, device in enumerate(devices[1:], start=1)
        ]

    @property
    def size(self) -> int:
        """Number of processes, the leader included."""
        return len(self._devices)

    @property
    def pids(self) -> list[int]:
        """The process ids of the ranks."""
        return [process.pid for process in self._ranks]

    def join(self) -> None:
        """Wait until all ranks are ready."""
        for rank, process in enumerate(self._ranks, start=1):
            device = str(self._devices[rank])
            process.send(Join(rank, self.size, device, self._store, self._timeout_seconds, self._cuda_graphs))
        with self._fatal("joining the group"):
            join_process_group(LEADER, self.size, self._store, self._devices[LEADER], self._timeout_seconds)
        logger.info("passes are shared by %s", ", ".join(str(device) for device in self._devices))

    def close(self) -> None:
        """Stop the ranks."""
        for process in self._ranks:
            process.begin_close()
        leave_process_group()
        for process in self._ranks:
            process.close()
        self._folder.cleanup()

    def __enter__(self) -> "RankGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def run(self, transformer: Transformer, inputs: PassInputs, split: Split, graphs: StepGraphs | None) -> Tensor:
        """The outputs (B, T, out channels, H, W) of a pass that all processes share.

        Raises:
            RankOutOfMemoryError: A rank had no memory for its part.
            RankFailedError: A rank failed in another way.
        """
        replica = self._replica_of(transformer)
        self._send(ComputePart(replica, layout_of(inputs), split))
        with self._fatal("sending the inputs of a pass"):
            dist.broadcast(pack(inputs, inputs.latents.device), LEADER)
        if split.axis == "frames":
            with self._fatal("a pass that is shared by frames"):
                outputs = compute_part(transformer, inputs, split, None)
        else:
            outputs = self._compute_rows(transformer, inputs, split, graphs)
        with self._fatal("gathering the outputs of a pass"):
            whole = gather_outputs(transformer, inputs, split, outputs)
        assert whole is not None
        return whole

    def _compute_rows(
        self, transformer: Transformer, inputs: PassInputs, split: Split, graphs: StepGraphs | None
    ) -> Tensor | None:
        """The outputs of the leader's rows, once the ranks have computed theirs."""
        outputs, error = None, None
        try:
            outputs = compute_part(transformer, inputs, split, graphs)
        except Exception as failure:
            error = failure
        failures = [(rank, answer) for rank in self._ranks if isinstance(answer := rank.receive(), PartFailed)]
        if error is not None or failures:
            self._send(DropOutputs())
            raise error or _to_error(*failures[0])
        self._send(SendOutputs())
        return outputs

    def _replica_of(self, transformer: Transformer) -> int:
        """The number of the model's replicas, which the ranks load if they have none, after they have dropped others
        that the leader has unloaded."""
        while self._dropped:
            self._send(DropReplica(self._dropped.pop()))
        if transformer not in self._replicas:
            self._num_replicas += 1
            number = self._replicas[transformer] = self._num_replicas
            self._send(describe_replica(number, transformer))
            with self._fatal("sending a model"):
                send_weights(transformer)
            finalize(transformer, self._dropped.append, number)
        return self._replicas[transformer]

    def _on_lost(self, reason: str) -> None:
        self._folder.cleanup()
        self._end(reason)

    def _send(self, message: RankMessage) -> None:
        for process in self._ranks:
            process.send(message)

    @contextmanager
    def _fatal(self, action: str) -> Iterator[None]:
        """A collective operation that fails leaves the processes out of step: the group ends."""
        try:
            yield
        except Exception as error:
            ends = (process.describe_end(_END_SECONDS / len(self._ranks)) for process in self._ranks)
            self._on_lost(next((end for end in ends if end is not None), f"{action} failed: {error}"))
            raise


def _to_error(rank: RankProcess, failure: PartFailed) -> Exception:
    kind = RankOutOfMemoryError if failure.is_out_of_memory else RankFailedError
    return kind(f"{rank.name}: {failure.reason}")
