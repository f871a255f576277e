"""The messages between the threads of a worker, and the inbox in which a thread receives them.

The dispatcher thread talks to Redis, the loader thread reads checkpoints, the preparer thread encodes requests, the
loop thread runs the engine, and the finisher thread makes the files. Each keeps its state to itself.

Shape legend: T frames, C H W latent.
"""

import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.cards import ModelCard
from jobs.videos.record import Artifact, ArtifactKind, Timings, VideoRecord
from models.checkpoint.load import Checkpoint
from models.generate import Generation
from models.vae import VideoDecoder

Artifacts = Mapping[ArtifactKind, Artifact]
Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """A queue of messages for one thread. Any thread and any signal handler may post."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def post(self, message: Message) -> None:
        self._queue.put(message)

    def receive(self, timeout_seconds: float | None = 0.0) -> list[Message]:
        """Wait for a message, without limit if the timeout is None, and return all that have arrived, in order."""
        messages: list[Message] = []
        try:
            messages.append(self._queue.get(timeout_seconds != 0, timeout_seconds))
            while True:
                messages.append(self._queue.get_nowait())
        except queue.Empty:
            return messages


# To the loop


@dataclass(frozen=True)
class AdmitJob:
    """Run a job, from `snapshot` if there is one. `request_id` names this execution: a video that comes back to the
    worker gets another one, so that late messages about the earlier execution are ignored. `reference` holds the frames
    (T, height, width, 3) uint8 of the request's reference."""

    request_id: str
    record: VideoRecord
    snapshot: bytes | None = None
    reference: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class JobPrepared:
    """The request of a job is encoded. On CUDA, the tensors are complete."""

    request_id: str
    generation: Generation


@dataclass(frozen=True)
class JobFailed:
    """Preparing, denoising or finishing raised `error`."""

    request_id: str
    error: Exception


@dataclass(frozen=True)
class EvictJob:
    """Stop a job at any stage."""

    request_id: str


@dataclass(frozen=True)
class DrainStarted:
    """The worker claims no more jobs and will end soon."""


@dataclass(frozen=True)
class DispatcherEnded:
    """The last message of the dispatcher: no job is left, or those that are left are given up."""


@dataclass(frozen=True)
class AddModel:
    """Load the checkpoint in a new folder, to check it, and serve it."""

    folder: Path
    card: ModelCard

    @property
    def model(self) -> str:
        return self.card.id


@dataclass(frozen=True)
class RemoveModel:
    """Unload a model for good: its folder is gone."""

    model: str


@dataclass(frozen=True)
class LoadModel:
    model: str


@dataclass(frozen=True)
class UnloadModel:
    """The model is loaded again for its next request."""

    model: str


@dataclass(frozen=True, eq=False)
class ModelRead:
    """The loader has read a checkpoint. On CUDA, the weights are complete."""

    model: str
    card: ModelCard
    checkpoint: Checkpoint


@dataclass(frozen=True)
class ModelNotRead:
    """Reading the checkpoint of a model raised `error`."""

    model: str
    error: Exception


@dataclass(frozen=True)
class PinModels:
    """Keep these models in memory, and no others."""

    models: frozenset[str]


ModelMessage = AddModel | RemoveModel | LoadModel | UnloadModel
ModelResult = ModelRead | ModelNotRead
JobStage = AdmitJob | JobPrepared | JobFailed | EvictJob
LoopMessage = JobStage | DrainStarted | DispatcherEnded | ModelMessage | PinModels | ModelResult


# To the dispatcher


@dataclass(frozen=True)
class LoopReport:
    """The heartbeat of the loop.

    Attributes:
        at: Time of the report.
        steps: Completed steps of each active request.
        cost_per_second: Measured speed of each model (`Engine.cost_per_second`).
        loaded: The models in memory.
        loading: The model that the loader reads.
    """

    at: float
    steps: Mapping[str, int]
    cost_per_second: Mapping[str, float]
    loaded: frozenset[str] = frozenset()
    loading: str | None = None


@dataclass(frozen=True)
class ModelLoading:
    """The model that is loaded since `at`, None when none is; posted before the load starts."""

    model: str | None
    at: float


@dataclass(frozen=True)
class ModelAdded:
    """The checkpoint of a new folder is loaded. The card is complete."""

    card: ModelCard


@dataclass(frozen=True)
class ModelRefused:
    """The checkpoint in a new folder cannot be used."""

    folder: Path


@dataclass(frozen=True)
class PassChanged:
    """The requests that take part in the passes under way, posted before a pass with other members starts."""

    request_ids: frozenset[str]


@dataclass(frozen=True)
class PreparationChanged:
    """The request that is prepared since `at`, None when none is; posted before the preparation starts."""

    request_id: str | None
    at: float


@dataclass(frozen=True)
class PreviewMade:
    """`url` is a data URL with a preview after `step` steps."""

    request_id: str
    step: int
    url: str


@dataclass(frozen=True)
class SnapshotTaken:
    request_id: str
    content: bytes


@dataclass(frozen=True)
class JobDenoised:
    """All steps are complete, and the finisher has the latents."""

    request_id: str


@dataclass(frozen=True)
class JobFinished:
    """The files are in the artifact store. `peak_memory_bytes` is that of the worker so far (`worker/device.py`)."""

    request_id: str
    artifacts: Artifacts
    timings: Timings
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class StopRequested:
    """The process has received a signal: the first asks for a drain, the second for an immediate end."""

    signal_number: int


@dataclass(frozen=True)
class LoopEnded:
    """The last message of the loop."""


JobMessage = PreviewMade | SnapshotTaken | JobDenoised | JobFinished | JobFailed
ModelReport = ModelLoading | ModelAdded | ModelRefused
DispatcherMessage = JobMessage | LoopReport | PassChanged | PreparationChanged | ModelReport | StopRequested | LoopEnded


# To the preparer


@dataclass(frozen=True, eq=False)
class PrepareJob:
    """Encode the prompts and the reference of a job, and load its adapters. `reference` is that of `AdmitJob`."""

    request_id: str
    record: VideoRecord
    card: ModelCard
    checkpoint: Checkpoint
    reference: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class DropJob:
    """The result of a job is not needed any more."""

    request_id: str


@dataclass(frozen=True)
class ClosePreparer:
    """End the thread after the job that it works on."""


PreparerMessage = PrepareJob | DropJob | ClosePreparer


# To the loader


@dataclass(frozen=True, eq=False)
class ReadModel:
    """Read a checkpoint to the device with `read`."""

    model: str
    read: Callable[[], tuple[ModelCard, Checkpoint]]


@dataclass(frozen=True)
class CloseLoader:
    """End the thread after the checkpoint that it reads."""


LoaderMessage = ReadModel | CloseLoader


# To the finisher


@dataclass(frozen=True, eq=False)
class FinishJob:
    """Make and store the files of a job.

    Attributes:
        latents: (1, T, C, H, W), on any device. No other thread writes to them.
        latents_ready: On CUDA, the event after which the latents are computed.
        denoise_seconds: Duration of the denoising steps, for the timings.
        reference: The frames of the request's reference, as in `AdmitJob`.
        checkpoint: The fingerprint of the model, for the metadata of the file.
    """

    request_id: str
    record: VideoRecord
    decoder: VideoDecoder
    latents: Tensor
    latents_ready: torch.cuda.Event | None
    denoise_seconds: float
    reference: NDArray[np.uint8] | None = None
    checkpoint: str = ""


@dataclass(frozen=True)
class StopRetries:
    """The worker ends: what fails now is not repeated."""


@dataclass(frozen=True)
class CloseFinisher:
    """End the thread after the job that it works on."""


FinisherMessage = FinishJob | DropJob | StopRetries | CloseFinisher
