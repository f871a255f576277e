"""From latents to files: decode, encode, deliver, on a thread beside the next denoising steps.

Shape legend: T frames, C H W latent.
"""

import errno
import logging
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.artifacts import file_name
from jobs.records import Timings
from models.vae import VideoDecoder
from worker.memory import is_out_of_memory
from worker.pictures import write_spritesheet, write_thumbnail
from worker.resident import ResidentModel
from worker.video import EncoderLostError, NoRoomError, write_mp4

logger = logging.getLogger(__name__)

_MEMORY_PATIENCE_SECONDS = 60.0
# An encoder that is killed is often well again soon, and denoising anew costs more than waiting.
_WRITE_PATIENCE_SECONDS = 30.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PAUSE_SECONDS = 0.5

Delivery = TypeVar("Delivery")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Finished(Generic[Delivery]):
    """`delivery` is what `deliver` returned."""

    request_id: str
    delivery: Delivery
    timings: Timings


@dataclass(frozen=True)
class FinishFailed:
    request_id: str
    error: Exception


@dataclass(frozen=True)
class _Work:
    request_id: str
    decoder: VideoDecoder
    latents: Tensor
    fps: float
    ready: torch.cuda.Event | None  # when the device has computed the latents


class Finisher(Generic[Delivery]):
    """Finishes videos one after the other, in the order in which they come.

    `deliver(request_id, folder)` takes the finished files in `folder` to where they belong. It runs on the thread too,
    and the folder is gone after it. What it raises fails the video, as what decoding and encoding raise does.
    """

    def __init__(
        self,
        deliver: Callable[[str, Path], Delivery],
        capacity: int = 4,
        room_patience_seconds: float = _WRITE_PATIENCE_SECONDS,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """`capacity`: with so many videos waiting or at work it is `full`. On a full disk a video waits for
        `room_patience_seconds`. `give_up` is asked before each further try of whatever failed."""
        self._deliver = deliver
        self._capacity = capacity
        self._patience = Patience(room_patience_seconds, give_up)
        self._lock = threading.Lock()
        self._waiting: dict[str, _Work] = {}
        self._num_open = 0
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Finished[Delivery] | FinishFailed] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="finishing", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether it is time to wait: more videos than it can hold would pile up. `submit` takes them all the same."""
        return len(self) >= self._capacity

    def __len__(self) -> int:
        """How many videos are waiting, at work, or not yet fetched by `finished`."""
        with self._lock:
            return self._num_open

    def submit(self, request_id: str, model: ResidentModel, latents: Tensor, fps: float) -> None:
        """Take `latents` (1, T, C, H, W), on any device; returns at once."""
        ready = None
        if latents.is_cuda:
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(torch.cuda.current_stream(latents.device))
        with self._lock:
            self._waiting[request_id] = _Work(request_id, model.checkpoint.vae, latents, fps, ready)
            self._num_open += 1
        self._news.put(request_id)

    def drop(self, request_id: str) -> bool:
        """Forget a video that waits. False for one that is at work, done or unknown: what comes of it, comes."""
        with self._lock:
            dropped = self._waiting.pop(request_id, None) is not None
            self._num_open -= dropped
        return dropped

    def finished(self) -> list[Finished[Delivery] | FinishFailed]:
        """What has come to its end since the last call; does not wait."""
        results = []
        while not self._results.empty():  # this is the only reader
            results.append(self._results.get())
        with self._lock:
            self._num_open -= len(results)
        return results

    def close(self) -> None:
        """Forget what waits, and wait for the end of what is at work."""
        with self._lock:
            self._num_open -= len(self._waiting)
            self._waiting.clear()
        self._news.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (request_id := self._news.get()) is not None:
            with self._lock:
                work = self._waiting.pop(request_id, None)
            if work is not None:
                self._results.put(self._finish(work))

    def _finish(self, work: _Work) -> Finished[Delivery] | FinishFailed:
        try:
            with self._patience.wait(_new_folder, "no folder can be made for a video") as name:
                folder = Path(name)
                decode_s, encode_s = _finish_beside(work, folder, self._patience)
                delivery = self._deliver(work.request_id, folder)
            return Finished(work.request_id, delivery, Timings(decode_s=decode_s, encode_s=encode_s))
        except Exception as error:
            return FinishFailed(work.request_id, error)


@dataclass(frozen=True)
class Patience:
    """How long what may pass by itself is tried again: a full disk for `room_seconds`, an encoder that was killed or
    another fault of the disk for `write_seconds`, a device without memory for `memory_seconds`."""

    room_seconds: float = 0.0
    give_up: Callable[[], bool] = lambda: False
    write_seconds: float = _WRITE_PATIENCE_SECONDS
    memory_seconds: float = _MEMORY_PATIENCE_SECONDS

    def wait(self, work: Callable[[], Answer], words: str, before_next: Callable[[], None] = lambda: None) -> Answer:
        """Do `work` until it does not raise, or raises what does not pass; `words` tell the log what is waited for."""
        started = time.monotonic()
        while True:
            try:
                return work()
            except Exception as error:
                if time.monotonic() - started >= self._seconds(error) or self.give_up():
                    raise
                logger.warning("%s, trying again: %s", words, error)
            before_next()
            time.sleep(_PAUSE_SECONDS)

    def _seconds(self, error: Exception) -> float:
        if isinstance(error, NoRoomError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            return self.room_seconds
        if isinstance(error, EncoderLostError | OSError):
            return self.write_seconds
        return self.memory_seconds if is_out_of_memory(error) else 0.0


# Of one who waits in front of a terminal.
_IMPATIENT = Patience(write_seconds=0.0)


def finish(
    latents: Tensor,
    decoder: VideoDecoder,
    fps: float,
    path: Path,
    pictures: Path | None = None,
    patience: Patience = _IMPATIENT,
) -> tuple[float, float]:
    """Write the video of `latents` (1, T, C, H, W) to `path`, and its still pictures into the folder `pictures`;
    the seconds that decoding and encoding took.

    Raises as `VideoDecoder.decode` and `write_mp4` do; what may pass by itself only once `patience` is at its end.
    """
    started = time.perf_counter()
    # Decoding shares the device with what denoises: when there is no memory for it, there may be some in a while.
    words = f"no memory to decode {latents.shape[1]} frames"
    frames = patience.wait(lambda: decoder.decode(latents), words, torch.cuda.empty_cache).numpy()
    decoded = time.perf_counter()
    patience.wait(lambda: _write(frames, fps, path, pictures), "a video could not be written")
    return decoded - started, time.perf_counter() - decoded


def _finish_beside(work: _Work, folder: Path, patience: Patience) -> tuple[float, float]:
    """`finish`, on CUDA in a stream of its own: in the engine's it would wait for the steps, and they for it."""
    path = folder / file_name("video")
    if work.ready is None:
        return finish(work.latents, work.decoder, work.fps, path, folder, patience)
    stream = torch.cuda.Stream(work.latents.device)  # type: ignore[no-untyped-call]
    stream.wait_event(work.ready)
    work.latents.record_stream(stream)
    with torch.cuda.stream(stream):
        return finish(work.latents, work.decoder, work.fps, path, folder, patience)


def _new_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="framedit-")


def _write(frames: NDArray[np.uint8], fps: float, path: Path, pictures: Path | None) -> None:
    write_mp4(frames, path, fps)
    if pictures is not None:
        write_thumbnail(frames, pictures / file_name("thumbnail"))
        write_spritesheet(frames, pictures / file_name("spritesheet"))
