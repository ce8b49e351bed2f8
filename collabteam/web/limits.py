"""Limits of the review server: time for a request, connections, and answers a second.

No person and no browser reaches them. They keep the page usable beside a program that opens
connections and sends nothing, or that floods the log with answers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_SECONDS = 15.0
"""Time for the headers of a request, also of the first one of a new connection."""
BODY_SECONDS = 30.0
"""Time for the body of a request; the largest has 256 kB."""
ANSWER_SECONDS = 120.0
"""Time from the end of a request to the end of its answer, until the browser has taken it."""
MOST_CONNECTIONS = 256
"""Open connections; a browser uses six."""

ANSWERS_A_SECOND = 600.0
"""Answers a second that a reviewer may send all the time."""
ANSWERS_AT_ONCE = 6000.0
"""Answers that a reviewer may send at once, such as pages that waited for the network."""


class LimitedProtocol(H11Protocol):
    """HTTP over one connection, which ends if the other side is too slow.

    If there are too many connections, the one that has kept the server waiting longest ends.
    """

    _timer: asyncio.TimerHandle | None = None
    _awaited: tuple[str, object] = ("", None)
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch(begun=True)
        if len(self.connections) > MOST_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch(begun=True)

    def on_response_complete(self) -> None:
        """Wait for the next request; uvicorn's own limit holds until it begins."""
        super().on_response_complete()
        self._watch(begun=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self, begun: bool) -> None:
        """Give the phase that the connection is in its time; a phase gets it once.

        Args:
            begun: Whether a request has begun, if the one before it is answered.
        """
        cycle = self.cycle
        if cycle is None:
            awaited, seconds = "headers", HEADERS_SECONDS
        elif cycle.more_body:
            awaited, seconds = "body", BODY_SECONDS
        elif not cycle.response_complete:
            awaited, seconds = "answer", ANSWER_SECONDS
        elif begun:
            awaited, seconds = "headers", HEADERS_SECONDS
        else:  # the answer is given, but may still have to be taken
            awaited, seconds = "", ANSWER_SECONDS
        if (awaited, cycle) == self._awaited:
            return
        self._stop()
        self._awaited, self._since = (awaited, cycle), self.loop.time()
        self._timer = self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        if self._awaited[0] or self.transport.get_write_buffer_size():
            self.transport.abort()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _make_room(self) -> None:
        """End the connection that has kept the server waiting longest; else this one."""
        waiting = [
            one
            for one in self.connections
            if isinstance(one, LimitedProtocol)
            and one._awaited[0] in ("", "headers", "body")
            and not one.transport.is_closing()
        ]
        longest = min(waiting, key=lambda one: one._since, default=self)
        longest.transport.abort()


class AnswerPace:
    """Counts the answers of each reviewer; safe to call from several threads.

    Args:
        clock: Returns seconds that never decrease.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}  # by reviewer: answers, and when

    def take(self, reviewer: str, count: int) -> bool:
        """Count answers; return False, and count none, if they come too fast."""
        now = self._clock()
        with self._lock:
            left, then = self._left.get(reviewer, (ANSWERS_AT_ONCE, now))
            left = min(ANSWERS_AT_ONCE, left + (now - then) * ANSWERS_A_SECOND)
            enough = count <= left
            self._left[reviewer] = left - count if enough else left, now
        return enough
