"""A pass that the device has been given. On CUDA the host goes on meanwhile, and waits only where it must know."""

from collections.abc import Sequence
from time import perf_counter

import torch
from torch import Tensor

from worker.seat import Seat


class Moment:
    """A point in the work of a device: on CUDA an event in its stream, otherwise the time."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))
        self._time = perf_counter()

    def wait(self) -> None:
        """Return when the device has come to it."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "Moment") -> float:
        """Of the device's time, when it has come to both."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return float(earlier._event.elapsed_time(self._event)) / 1000


class Flight:
    """One step of `seats`, given to the device. `steps` are those that each has then done."""

    def __init__(self, seats: Sequence[Seat], finite: Tensor, started: Moment) -> None:
        """`finite` (B,) on the device: which have come to finite numbers."""
        self.seats = seats
        self.steps = [seat.step for seat in seats]
        self.rows = sum(seat.rows for seat in seats)
        self.is_asynchronous = finite.is_cuda
        self._started = started
        self._finite = finite
        if finite.is_cuda:
            self._finite = torch.empty(finite.shape, dtype=finite.dtype, pin_memory=True)
            self._finite.copy_(finite, non_blocking=True)
        self._ended = Moment(finite.device)

    def land(self) -> list[bool]:
        """Wait for its end; which of the requests have come to finite numbers."""
        self._ended.wait()
        return [bool(is_finite) for is_finite in self._finite.tolist()]

    @property
    def seconds(self) -> float:
        """How long it took, once it has landed."""
        return self._ended.seconds_since(self._started)
