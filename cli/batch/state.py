"""The state of a batch in a file, from which the same command goes on."""

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cli.batch.rows import Row
from jobs.errors import InvalidRequestError

RowStatus = Literal["created", "completed", "failed"]


@dataclass(frozen=True)
class RowState:
    """The state of a row. `attempt` counts the videos that failed before."""

    number: int
    fingerprint: str
    status: RowStatus
    video_id: str
    attempt: int = 0
    file: str | None = None
    error: str | None = None


class BatchState:
    """A line of JSON for each change, written at once: the last line of a row counts."""

    def __init__(self, path: Path, server: str) -> None:
        """Open or create the file.

        :raises InvalidRequestError: when it cannot be written, or is of another server.
        """
        self._path = path
        self._rows: dict[int, RowState] = {}
        self.run = uuid.uuid4().hex
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            if text:
                self._load(text, server)
            else:
                self._append({"run": self.run, "server": server})
            if text and not text.endswith("\n"):  # the process was killed in the last line
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        except OSError as error:
            raise InvalidRequestError(f"the state file {path} cannot be used: {error.strerror}") from None

    def of(self, row: Row) -> RowState | None:
        """The state of a row, None if the row is new or was changed."""
        state = self._rows.get(row.number)
        return state if state is not None and state.fingerprint == row.fingerprint else None

    def idempotency_key(self, row: Row) -> str:
        """The same for each try to create the video of a row; another one after a failure."""
        return f"{self.run}-{row.number}-{row.fingerprint}-{self._attempt(row)}"

    def created(self, row: Row, video_id: str) -> None:
        self._set(RowState(row.number, row.fingerprint, "created", video_id, self._attempt(row)))

    def completed(self, row: Row, video_id: str, file: str) -> None:
        self._set(RowState(row.number, row.fingerprint, "completed", video_id, self._attempt(row), file))

    def failed(self, row: Row, video_id: str, error: str) -> None:
        self._set(RowState(row.number, row.fingerprint, "failed", video_id, self._attempt(row) + 1, None, error))

    def _attempt(self, row: Row) -> int:
        state = self.of(row)
        return 0 if state is None else state.attempt

    def _set(self, state: RowState) -> None:
        self._rows[state.number] = state
        self._append(asdict(state))

    def _append(self, entry: dict[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _load(self, text: str, server: str) -> None:
        head, *lines = text.splitlines()
        try:
            known = json.loads(head)
            self.run = str(known["run"])
            if known["server"] != server:
                raise InvalidRequestError(
                    f"the state file {self._path} is of the server {known['server']}, not {server}; choose another "
                    "output with -o, or remove the file to start anew"
                )
            for line in filter(_is_complete, lines):
                state = RowState(**json.loads(line))
                self._rows[state.number] = state
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidRequestError):
                raise
            raise InvalidRequestError(f"the state file {self._path} is damaged; remove it to start anew") from None


def _is_complete(line: str) -> bool:
    """Whether a line was written to its end."""
    return line.endswith("}")
