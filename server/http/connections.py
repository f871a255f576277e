"""Limits on client connections: their number, and the time that a client may take to send or to receive.

Each connection keeps a deadline for its client's next progress; `sweep` closes those that miss it. A new connection
replaces the connection that has waited longest for a request, so idle clients keep no other client out.
"""

import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Protocol

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectionLimits:
    max_connections: int = 1000
    max_pending_head_bytes: int = 16 << 20
    """Of all connections together, in requests whose head is incomplete."""
    head_seconds: float = 10.0
    stall_seconds: float = 20.0
    """Without progress of a request's body or of a response."""


class Connection(Protocol):
    client_address: str
    pending_head_bytes: int

    def abort(self) -> None: ...

    def check_progress(self, now: float) -> None:
        """Close the connection when its client has missed a deadline."""


class Connections:
    """The open connections of one server. For one event loop."""

    def __init__(self, limits: ConnectionLimits | None = None) -> None:
        self.limits = limits or ConnectionLimits()
        self._open: set[Connection] = set()
        self._waiting: OrderedDict[Connection, None] = OrderedDict()
        self._pending_head_bytes = 0
        self._closed: Counter[str] = Counter()
        self._last_address = ""

    def admit(self, connection: Connection) -> bool:
        """Add a new connection, which waits for a request. False when the server is full of requests in progress."""
        if len(self._open) >= self.limits.max_connections and not self._close_longest_waiting("server full"):
            return False
        self._open.add(connection)
        self.wait(connection)
        return True

    def remove(self, connection: Connection) -> None:
        self._open.discard(connection)
        self.serve(connection)

    def wait(self, connection: Connection) -> None:
        """Note that the connection has no request in progress."""
        self._waiting[connection] = None

    def serve(self, connection: Connection) -> None:
        """Note that the head of a request is complete, or that the connection has ended."""
        self._waiting.pop(connection, None)
        self._pending_head_bytes -= connection.pending_head_bytes
        connection.pending_head_bytes = 0

    def hold_head(self, connection: Connection, num_bytes: int) -> None:
        """Count bytes of an incomplete head. Above the limit of all heads, the oldest connections are closed."""
        connection.pending_head_bytes += num_bytes
        self._pending_head_bytes += num_bytes
        while self._pending_head_bytes > self.limits.max_pending_head_bytes:
            if not self._close_longest_waiting("too many incomplete request heads"):
                return

    def note_closed(self, reason: str, address: str) -> None:
        """Count a connection that the server closes, for the log line of the next sweep."""
        self._closed[reason] += 1
        self._last_address = address

    def sweep(self, now: float) -> None:
        """Close the connections whose clients make no progress; log what was closed since the last sweep, in one line:
        a line for each would let clients fill the disk."""
        for connection in list(self._open):
            connection.check_progress(now)
        if self._closed:
            counts = ", ".join(f"{count} x {reason}" for reason, count in self._closed.most_common())
            logger.warning("connections closed: %s; the last client was %s", counts, self._last_address)
            self._closed.clear()

    def _close_longest_waiting(self, reason: str) -> bool:
        connection = next(iter(self._waiting), None)
        if connection is None:
            return False
        self.remove(connection)
        self.note_closed(reason, connection.client_address)
        connection.abort()
        return True
