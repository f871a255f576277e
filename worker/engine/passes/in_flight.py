"""Passes that the device has been given and may still be computing. On CUDA the host does not wait for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from worker.engine.active_request import ActiveRequest, Group


class DeviceTimestamp:
    """A point in the work of a device: on CUDA an event in its stream, otherwise the time."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))
        self._time = perf_counter()

    def wait(self) -> None:
        """Return when the device has reached this point."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "DeviceTimestamp") -> float:
        """Device time between the two points. Both must be reached."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return float(earlier._event.elapsed_time(self._event)) / 1000


class InFlightPass:
    """One forward pass over `requests`. `steps` holds the steps of all turns that each has completed with it."""

    def __init__(self, requests: Sequence[ActiveRequest], rows: int, finite: Tensor, started: DeviceTimestamp) -> None:
        """`finite` (B,) bool on the device: whether the latents of each request are finite."""
        self.requests = requests
        self.steps = [request.steps_done for request in requests]
        self.rows = rows
        self.is_asynchronous = finite.is_cuda
        self._started = started
        self._finite = finite
        if finite.is_cuda:
            self._finite = torch.empty(finite.shape, dtype=finite.dtype, pin_memory=True)
            self._finite.copy_(finite, non_blocking=True)
        self._ended = DeviceTimestamp(finite.device)

    def wait(self) -> list[bool]:
        """Wait for the end of the pass. Returns whether the latents of each request are finite."""
        self._ended.wait()
        return [bool(is_finite) for is_finite in self._finite.tolist()]

    @property
    def seconds(self) -> float:
        """Duration of the pass. Call `wait` before."""
        return self._ended.seconds_since(self._started)


@dataclass(frozen=True)
class InFlightStep:
    """One step of the requests that the scheduler has chosen.

    It is one pass, in deterministic mode one pass for each request. `is_complete`: all chosen requests take part, which
    is not so when memory was short or a request failed.
    """

    group: Group
    passes: Sequence[InFlightPass]
    is_complete: bool

    @property
    def is_asynchronous(self) -> bool:
        return any(part.is_asynchronous for part in self.passes)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.passes)

    @property
    def seconds(self) -> float:
        """Duration of all passes. Wait for each of them before."""
        return sum(part.seconds for part in self.passes)
