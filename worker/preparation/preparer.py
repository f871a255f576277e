"""The preparer thread: encodes the prompts and references of requests during the denoising steps of others."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from models.generate import Generation
from worker.context import log_about
from worker.device import free_cached_memory
from worker.generate import to_generation
from worker.loading.adapter_cache import AdapterCache
from worker.loading.model_cache import LoadedModel
from worker.messages import (
    ClosePreparer,
    DispatcherMessage,
    DropJob,
    Inbox,
    JobFailed,
    JobPrepared,
    LoopMessage,
    PreparationChanged,
    PrepareJob,
    PreparerMessage,
)
from worker.output.passing_faults import Retry

# The steps share the device, so memory may become free.
_RETRY = Retry(full_disk_seconds=0.0, write_seconds=0.0, memory_seconds=10.0)


class Preparer:
    """Prepares jobs one after the other, in order of arrival, and posts the results to the loop."""

    def __init__(
        self,
        inbox: Inbox[PreparerMessage],
        loop: Inbox[LoopMessage],
        dispatcher: Inbox[DispatcherMessage],
        adapters: AdapterCache,
        clock: Callable[[], float] = time.monotonic,
        retry: Retry = _RETRY,
    ) -> None:
        self._inbox = inbox
        self._loop = loop
        self._dispatcher = dispatcher
        self._adapters = adapters
        self._clock = clock
        self._retry = replace(retry, pause=self._pause)
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._waiting: dict[str, PrepareJob] = {}
        self._current: str | None = None  # None also when the current job was dropped
        self._is_closing = False

    def run(self) -> None:
        """Run until `ClosePreparer` arrives; jobs that wait then are forgotten."""
        while not self._is_closing:
            self._receive(timeout_seconds=0.0 if self._waiting else None)
            if self._waiting and not self._is_closing:
                self._prepare(self._waiting.pop(next(iter(self._waiting))))

    def _receive(self, timeout_seconds: float | None) -> None:
        for message in self._inbox.receive(timeout_seconds):
            match message:
                case PrepareJob():
                    self._waiting[message.request_id] = message
                case DropJob(request_id):
                    self._waiting.pop(request_id, None)
                    if request_id == self._current:
                        self._current = None
                case ClosePreparer():
                    self._is_closing = True

    def _prepare(self, job: PrepareJob) -> None:
        self._current = job.request_id
        self._dispatcher.post(PreparationChanged(job.request_id, self._clock()))
        with log_about(job.record):
            self._loop.post(self._result(job))
        self._dispatcher.post(PreparationChanged(None, self._clock()))

    def _result(self, job: PrepareJob) -> JobPrepared | JobFailed:
        failure = f"{job.record.id}: preparation ran out of memory"
        try:
            generation = self._retry.run(lambda: self._to_generation(job), failure, free_cached_memory)
            return JobPrepared(job.request_id, generation)
        except Exception as error:
            return JobFailed(job.request_id, error)

    def _to_generation(self, job: PrepareJob) -> Generation:
        """Encode a request, on CUDA in a stream of its own: in the engine's stream it would delay the steps."""
        device = next(job.checkpoint.transformer.parameters()).device
        if device.type != "cuda":
            return self._encode(job)
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream = self._streams[device]
        with torch.cuda.stream(stream):
            generation = self._encode(job)
        stream.synchronize()
        if job.checkpoint.text_encoder is not None and job.checkpoint.text_encoder.is_offloaded:
            free_cached_memory()  # of the weights, which the encoder has copied
        for tensor in _tensors(generation):
            # The allocator knows only the stream in which a tensor was made. Without this, it would reuse the memory
            # for the next preparation while the engine's stream may still read it.
            if tensor.is_cuda:
                tensor.record_stream(torch.cuda.default_stream(device))
        return generation

    def _encode(self, job: PrepareJob) -> Generation:
        request, model = job.record.request, LoadedModel(job.card, job.checkpoint)
        return to_generation(request, model, job.reference, self._adapters.load(request.adapters, model))

    def _pause(self, seconds: float) -> bool:
        """Wait before a retry, and return whether to retry."""
        resume_at = self._clock() + seconds
        while not self._should_stop() and (remaining := resume_at - self._clock()) > 0:
            self._receive(remaining)
        return not self._should_stop()

    def _should_stop(self) -> bool:
        """Whether to give up instead of retrying: the worker ends, or the current job was dropped."""
        self._receive(timeout_seconds=0.0)
        return self._is_closing or self._current is None


def _tensors(generation: Generation) -> Iterator[Tensor]:
    for condition in (generation.condition, generation.negative):
        if condition is not None:
            parts = (condition.labels, condition.text, condition.text_mask)
            yield from (tensor for tensor in parts if tensor is not None)
    if generation.known is not None:
        yield from (generation.known.latents, generation.known.is_known)
    if generation.source is not None:
        yield generation.source.latents
    for scaled in generation.adapters:
        for updates in scaled.adapter.updates.values():
            for update in updates:
                yield from (update.down, update.up)
