"""Creates, follows and downloads the videos of many rows, a few at a time."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Literal

from cli.batch.rows import Row
from cli.batch.state import BatchState
from cli.client.api_client import Client, RefusedError, UnavailableError
from cli.client.follow import follow
from jobs.errors import FrameditError


@dataclass(frozen=True)
class RowResult:
    """The end of a row: `completed`, `failed`, `skipped` (an earlier run completed it) or `created` (`--detach`)."""

    row: Row
    status: Literal["completed", "failed", "skipped", "created"]
    video_id: str = ""
    file: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Created:
    row: Row
    video_id: str


@dataclass(frozen=True)
class _Aborted:
    """A thread has ended by an error that is not that of a row: the server does not answer any more."""

    error: Exception


class BatchRun:
    """The calling thread alone owns the state; the threads that talk to the server report to its inbox."""

    def __init__(self, client: Client, state: BatchState, output: Path, concurrency: int, detach: bool = False) -> None:
        self._client = client
        self._state = state
        self._output = output
        self._concurrency = concurrency
        self._detach = detach
        self._inbox: SimpleQueue[_Created | RowResult | _Aborted] = SimpleQueue()
        self._waiting: SimpleQueue[tuple[Row, str, str | None]] = SimpleQueue()
        self._stopping = Event()

    def results(self, rows: Sequence[Row]) -> Iterator[RowResult]:
        """Yield the result of each row as it ends.

        :raises UnavailableError: when the server does not answer any more. Another run goes on from there.
        """
        missing = 0
        digits = len(str(len(rows)))
        self._paths = {row.number: _numbered(self._output, row.number, digits) for row in rows}
        for row in rows:
            state = self._state.of(row)
            if state is not None and state.file is not None and Path(state.file).is_file():
                yield RowResult(row, "skipped", state.video_id, state.file)
                continue
            video_id = state.video_id if state is not None and state.status != "failed" else None
            self._waiting.put((row, self._state.idempotency_key(row), video_id))
            missing += 1
        # Daemon threads: after Ctrl-C the process ends without waiting for the server.
        for _ in range(min(self._concurrency, missing)):
            Thread(target=self._work, daemon=True).start()
        try:
            while missing:
                message = self._inbox.get()
                match message:
                    case _Created(row, video_id):
                        self._state.created(row, video_id)
                    case _Aborted(error):
                        raise error
                    case RowResult():
                        self._record(message)
                        missing -= 1
                        yield message
        finally:
            self._stopping.set()

    def _record(self, result: RowResult) -> None:
        if result.status == "completed":
            self._state.completed(result.row, result.video_id, str(result.file))
        elif result.status == "failed":
            self._state.failed(result.row, result.video_id, str(result.error))

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                row, key, video_id = self._waiting.get_nowait()
            except Empty:
                return
            try:
                self._inbox.put(self._make(row, key, video_id))
            except Exception as error:
                self._inbox.put(_Aborted(error))
                return

    def _make(self, row: Row, key: str, video_id: str | None) -> RowResult:
        try:
            if video_id is None:
                [video] = self._client.create(row.fields, idempotency_key=key)
                video_id = str(video["id"])
                self._inbox.put(_Created(row, video_id))
            if self._detach:
                return RowResult(row, "created", video_id)
            return self._finish(row, video_id)
        except UnavailableError:
            raise
        except FrameditError as error:
            return RowResult(row, "failed", video_id or "", error=_reason(error))

    def _finish(self, row: Row, video_id: str) -> RowResult:
        [state] = deque(follow(self._client, video_id), maxlen=1)  # the last state is the complete video
        if state["status"] != "completed":
            error = state["error"]
            return RowResult(row, "failed", video_id, error=f"{error['code']}: {error['message']}")
        file = self._client.download(video_id, self._paths[row.number])
        return RowResult(row, "completed", video_id, str(file))


def _numbered(output: Path, number: int, digits: int) -> Path:
    return output.with_stem(f"{output.stem}-{number:0{digits}d}")


def _reason(error: FrameditError) -> str:
    gone = isinstance(error, RefusedError) and error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
    return f"{error.message}; run the command again to create another video" if gone else error.message
