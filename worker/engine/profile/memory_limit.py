"""The number of rows for which the device has memory in one forward pass.

`worker/engine/passes/executor.py` decides what else is done when there is none.
"""

# Successful passes at the limit before it grows by one row: what had filled the memory may be gone.
PASSES_TO_GROW = 100


class RowLimit:
    """At most `max_rows` rows. The limit halves when memory is refused, and grows slowly after that."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._successes = 0
        self.rows = max_rows

    def record_refusal(self, rows: int) -> None:
        """Memory was refused for a pass of `rows` rows."""
        self.rows = max(1, min(self.rows, rows // 2))
        self._successes = 0

    def record_success(self, rows: int) -> None:
        """A pass of `rows` rows had enough memory."""
        if self.rows == self._max_rows or rows < self.rows:
            return
        self._successes += 1
        if self._successes == PASSES_TO_GROW:
            self.rows += 1
            self._successes = 0
