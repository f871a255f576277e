"""The device of a worker: its choice and number format, its memory, and events in its work."""

import os
import resource
import sys
import threading
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint.load import TextPlace
from models.kernels.support import find_obstacle
from worker.errors import StartupError

_STATM = Path("/proc/self/statm")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# PyTorch does not free cached memory while one thread captures a CUDA graph: both take this lock.
capture_lock = threading.RLock()
# Messages of the CPU's allocator, of the driver (for page-locked memory), and of cuBLAS and cuDNN.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, without one the CPU. Raises `StartupError` for a missing device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise StartupError(f"device {name!r} cannot be used: {reason}; try FRAMEDIT_DEVICE=cpu or auto") from error
    return device


def choose_devices(name: str, count: int) -> list[torch.device]:
    """The device `name` and, for a `count` above 1, those with the next numbers; the CPU counts `count` times.

    Raises `StartupError` for a missing device.
    """
    first = choose_device(name)
    if first.type != "cuda" or count == 1:
        return [first] * count
    return [choose_device(f"cuda:{index}") for index in range(first.index or 0, (first.index or 0) + count)]


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 on the CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def choose_text_place(name: str, device: torch.device) -> TextPlace:
    """`auto` and `cuda` are the device of the models. Raises `StartupError` for a GPU that the worker does not use."""
    if name in ("cuda", "offload") and device.type != "cuda":
        raise StartupError(
            f"text_encoder_device is {name!r}, but the worker's device is {device}: "
            "set FRAMEDIT_TEXT_ENCODER_DEVICE=auto or cpu, or FRAMEDIT_DEVICE=cuda"
        )
    places: dict[str, TextPlace] = {"cpu": "cpu", "offload": "offload"}
    return places.get(name, "device")


def describe_fast_path(fast: bool, device: torch.device, dtype: torch.dtype) -> str:
    """Describe the parts of the fast path in use, and the reason why others are not."""
    if not fast:
        return "off, as FRAMEDIT_FAST says"
    if device.type != "cuda":
        return "none, as it needs a CUDA device"
    obstacle = find_obstacle(device, dtype)
    return f"CUDA graphs; no fused operations: {obstacle}" if obstacle else "fused operations and CUDA graphs"


def choose_max_batch_rows(rows: int, device: torch.device) -> int:
    """0 means 8 on the CPU, where latency grows with the rows, and 32 on CUDA, where it hardly does."""
    return rows or (32 if device.type == "cuda" else 8)


def peak_memory_bytes(device: torch.device) -> int:
    """The most device memory that the tensors of this process have taken; on the CPU its peak resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # In KiB, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_bytes(device: torch.device) -> int:
    """Device memory that this process has reserved; on the CPU its resident memory."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return peak_memory_bytes(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, has refused memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error) for message in _OUT_OF_MEMORY)
    )


def free_cached_memory() -> None:
    """Give memory that PyTorch keeps for later back to the CUDA device, from any thread."""
    with capture_lock:
        torch.cuda.empty_cache()


def record_event(latents: Tensor) -> torch.cuda.Event | None:
    """On CUDA, an event that marks the end of the work given to the device so far."""
    if not latents.is_cuda:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(latents.device))
    return event
