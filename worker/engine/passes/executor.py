"""Executes steps on the device, and recovers when memory is short or a pass fails."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch

from models.transformer import Transformer
from worker.device import free_cached_memory, is_out_of_memory
from worker.engine.active_request import ActiveRequest
from worker.engine.passes.batch import Batch
from worker.engine.passes.graphs import StepGraphs
from worker.engine.passes.in_flight import DeviceTimestamp, InFlightPass
from worker.engine.profile.exact_rows import count_sharing
from worker.engine.profile.group_profile import GroupProfile
from worker.engine.profile.memory_limit import RowLimit
from worker.engine.ranks.rank_group import RankGroup
from worker.engine.ranks.shared_pass import SharedPass
from worker.errors import OutOfDeviceMemoryError
from worker.loading.model_cache import ModelCache

logger = logging.getLogger(__name__)

_MEMORY_RETRY_SECONDS = 0.5


@dataclass
class Execution:
    """The outcome of one step. Requests in neither list had no memory; they retry later."""

    passes: list[InFlightPass] = field(default_factory=list)
    failures: list[tuple[ActiveRequest, Exception]] = field(default_factory=list)


class Executor:
    """Keeps the batches of the last step for reuse. Batches of earlier steps hold outdated states."""

    def __init__(
        self,
        models: ModelCache,
        deterministic: bool,
        memory_patience_seconds: float,
        clock: Callable[[], float],
        cuda_graphs: bool = True,
        ranks: RankGroup | None = None,
    ) -> None:
        """`ranks`: other GPUs, which share passes."""
        self._models = models
        self._deterministic = deterministic
        self._patience_seconds = memory_patience_seconds
        self._clock = clock
        self._cuda_graphs = cuda_graphs
        self._ranks = ranks
        self._batches: dict[tuple[ActiveRequest, ...], Batch] = {}
        self._graphs: WeakKeyDictionary[Transformer, StepGraphs] = WeakKeyDictionary()

    def graphs_of(self, transformer: Transformer) -> StepGraphs | None:
        """The graphs of a loaded model, which live as long as it does. None where steps run without them."""
        if not self._cuda_graphs or next(transformer.parameters()).device.type != "cuda":
            return None
        return self._graphs.setdefault(transformer, StepGraphs())

    def shared_pass(self, transformer: Transformer) -> SharedPass | None:
        """The pass of a model that several GPUs share. None on a single one."""
        if self._ranks is None:
            return None
        return SharedPass(self._ranks, transformer, self._deterministic, self.graphs_of(transformer))

    def execute(
        self, requests: Sequence[ActiveRequest], profile: GroupProfile, models_in_use: Collection[str]
    ) -> Execution:
        """Start the next step of `requests`, which are of one group: one pass, when deterministic one or several.

        When memory is short, CUDA graphs are dropped, then models outside `models_in_use` are unloaded, then the batch
        shrinks, and the other requests wait. For one request alone, models in use are unloaded, too.

        Raises:
            torch.AcceleratorError: The device is lost, which is not the fault of a request.
        """
        last_batches, self._batches = self._batches, {}
        execution = Execution()
        attempt = _Attempt(profile, models_in_use, last_batches, execution)
        while requests:
            members = self._fitting(requests, attempt) if self._deterministic else requests
            self._execute(members, attempt)
            requests = requests[len(members) :]
        running = {request for members in self._batches for request in members}
        for request in {request for members in last_batches for request in members} - running:
            request.detach_from_batch()
        return execution

    def _execute(self, requests: Sequence[ActiveRequest], attempt: "_Attempt") -> None:
        while requests:
            try:
                attempt.execution.passes.append(self._start_pass(requests, attempt))
                return
            except Exception as error:
                failure = error
            if is_out_of_memory(failure):
                failure.__traceback__ = None  # it holds on to what the pass had allocated
                free_cached_memory()
                requests = self._reduce(requests, attempt)
            elif isinstance(failure, torch.AcceleratorError):
                raise failure
            elif len(requests) == 1:
                attempt.execution.failures.append((requests[0], failure))
                return
            else:
                logger.warning("pass of %d requests failed, trying each alone: %r", len(requests), failure)
                for request in requests:
                    self._execute([request], attempt)
                return

    def _start_pass(self, requests: Sequence[ActiveRequest], attempt: "_Attempt") -> InFlightPass:
        transformer = self._models[requests[0].group.model].checkpoint.transformer
        limit = attempt.profile.row_limit
        members = tuple(requests)
        batch = attempt.last_batches.get(members)
        if batch is None or not batch.is_current:
            batch = Batch(members, transformer)
        for request in requests:
            if request.started_at is None:
                request.started_at = self._clock()
        rows = sum(request.rows for request in requests)
        started = DeviceTimestamp(batch.device)
        shared = self.shared_pass(transformer)
        finite = batch.step(transformer, self._rows_at_once(requests, limit), self.graphs_of(transformer), shared)
        in_flight = InFlightPass(members, rows, finite, started)
        limit.record_success(rows)
        self._batches[members] = batch
        return in_flight

    def _rows_at_once(self, requests: Sequence[ActiveRequest], limit: RowLimit) -> int:
        rows = sum(request.rows for request in requests)
        return rows if self._deterministic else min(rows, limit.rows)

    def _fitting(self, requests: Sequence[ActiveRequest], attempt: "_Attempt") -> Sequence[ActiveRequest]:
        """The first of `requests`, at least one, that share a pass within the row limit."""
        max_rows = attempt.profile.row_limit.rows
        if self._deterministic:
            # The exact numbers of rows were measured without adapters: a request with some runs alone.
            row_counts = [0 if request.generation.adapters else request.rows for request in requests]
            return requests[: count_sharing(row_counts, attempt.profile.exact_rows, max_rows)]
        num_fitting = sum(total <= max_rows for total in accumulate(request.rows for request in requests))
        return requests[: max(1, num_fitting)]

    def _reduce(self, requests: Sequence[ActiveRequest], attempt: "_Attempt") -> Sequence[ActiveRequest]:
        """Free memory, or choose fewer of `requests`, after the device had no memory for all of them."""
        if self._drop_graphs() or self._models.unload_one(keep=attempt.models_in_use):
            return requests
        limit = attempt.profile.row_limit
        rows = self._rows_at_once(requests, limit)
        if rows > 1 and (len(requests) > 1 or not self._deterministic):
            limit.record_refusal(rows)
            model = requests[0].group.model
            logger.warning("out of memory with %d rows of %s, trying %d rows", rows, model, limit.rows)
            return self._fitting(requests, attempt)
        if self._models.unload_one(keep={requests[0].group.model}):
            return requests
        self._postpone(requests[0], attempt.execution)
        return []

    def _drop_graphs(self) -> bool:
        """Free the memory of all CUDA graphs. Returns whether there were any."""
        dropped = [graphs.clear() for graphs in self._graphs.values()]
        if any(dropped):
            logger.warning("out of memory: CUDA graphs dropped")
            free_cached_memory()
        return any(dropped)

    def _postpone(self, request: ActiveRequest, execution: Execution) -> None:
        """Retry a request later that has no memory even alone, or fail it when that has lasted too long."""
        now = self._clock()
        if request.out_of_memory_since is None:
            request.out_of_memory_since = now
        if now - request.out_of_memory_since < self._patience_seconds:
            request.retry_at = now + _MEMORY_RETRY_SECONDS
            return
        message = (
            f"the device had no memory for this request for {self._patience_seconds:.0f} s, even without other "
            "requests: try fewer frames"
        )
        execution.failures.append((request, OutOfDeviceMemoryError(message)))


@dataclass(frozen=True)
class _Attempt:
    """The common data of the attempts of one step."""

    profile: GroupProfile
    models_in_use: Collection[str]
    last_batches: dict[tuple[ActiveRequest, ...], Batch]
    execution: Execution
