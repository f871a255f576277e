"""How many rows a forward pass may have before the device's memory is full."""

import torch

# How the CPU's allocator, the driver (when asked for page-locked memory) and two of the libraries on top of it put it.
_REFUSALS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
# Passes at the limit that went well, after which one row more is tried: what filled the memory may have gone.
PASSES_TO_GROW = 100


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, has refused memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _REFUSALS)
    )


class RowLimit:
    """At most `most` rows; fewer after memory was refused, and slowly more again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._passes = 0
        self.rows = most

    def refused(self, rows: int) -> None:
        """There was no memory for a pass of so many rows."""
        self.rows = max(1, min(self.rows, rows // 2))
        self._passes = 0

    def passed(self, rows: int) -> None:
        """A pass of so many rows went well."""
        if self.rows == self._most or rows < self.rows:
            return
        self._passes += 1
        if self._passes == PASSES_TO_GROW:
            self.rows += 1
            self._passes = 0
