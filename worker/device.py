"""Which device and which number format the models run in."""

import os
import resource
import sys
from pathlib import Path

import torch

from worker.errors import StartupError

_STATM = Path("/proc/self/statm")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the CPU. Raises `StartupError` for one not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise StartupError(f"device {name!r} cannot be used: {reason}; try FRAMEDIT_DEVICE=cpu or auto") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 on the CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def choose_max_batch_rows(rows: int, device: torch.device) -> int:
    """0 is 8 on the CPU, where time grows with the rows, and 32 on CUDA, where it hardly does in small models."""
    return rows or (32 if device.type == "cuda" else 8)


def memory_bytes(device: torch.device) -> int:
    """What this process holds of the device's memory; of the CPU's, what is resident."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the most that it ever was, in KiB, or on macOS in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
