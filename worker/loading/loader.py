"""The loader thread: reads checkpoints during the denoising steps of the models in memory."""

import time
from collections.abc import Callable

import torch

from jobs.cards import ModelCard
from models.checkpoint.load import Checkpoint
from worker.messages import (
    CloseLoader,
    DispatcherMessage,
    Inbox,
    LoaderMessage,
    LoopMessage,
    ModelLoading,
    ModelNotRead,
    ModelRead,
    ReadModel,
)


class Loader:
    """Reads one checkpoint after the other, and posts the results to the loop, which keeps the models."""

    def __init__(
        self,
        inbox: Inbox[LoaderMessage],
        loop: Inbox[LoopMessage],
        dispatcher: Inbox[DispatcherMessage],
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._loop = loop
        self._dispatcher = dispatcher
        self._device = device
        self._clock = clock
        self._is_closing = False

    def run(self) -> None:
        """Run until `CloseLoader` arrives; checkpoints that wait then are forgotten."""
        while not self._is_closing:
            messages = self._inbox.receive(timeout_seconds=None)
            self._is_closing = any(isinstance(message, CloseLoader) for message in messages)
            for message in messages:
                if isinstance(message, ReadModel) and not self._is_closing:
                    self._load(message)

    def _load(self, message: ReadModel) -> None:
        self._dispatcher.post(ModelLoading(message.model, self._clock()))
        self._loop.post(self._result(message))
        self._dispatcher.post(ModelLoading(None, self._clock()))

    def _result(self, message: ReadModel) -> ModelRead | ModelNotRead:
        try:
            card, checkpoint = message.read() if self._device.type != "cuda" else self._read_in_stream(message)
        except Exception as error:
            return ModelNotRead(message.model, error.with_traceback(None))  # it holds on to what was allocated
        return ModelRead(message.model, card, checkpoint)

    def _read_in_stream(self, message: ReadModel) -> tuple[ModelCard, Checkpoint]:
        """Read on CUDA in a stream of its own: in the engine's stream, the copies would wait for the steps."""
        with torch.cuda.stream(torch.cuda.Stream(self._device)):  # type: ignore[no-untyped-call]
            card, checkpoint = message.read()
        for tensor in checkpoint.weights():
            # When the model is unloaded, the engine's stream may still have a step to do with it.
            if tensor.is_cuda:
                tensor.record_stream(torch.cuda.default_stream(self._device))
        return card, checkpoint
