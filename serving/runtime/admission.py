"""What is let in: so much that the queues are never empty under load, and never so long that waiting is in vain.

Whatever is refused is refused before any work is done for it, on the event loop, which no run of a model holds up.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from ..calls import call_record, deadline
from ..calls.call_limit import CallLimit
from ..errors import BusyError, DeadlineError, InvalidRequestError
from ..limits import BATCH_SAMPLES
from .batching import CHUNKS_AHEAD, BatchedSession

STREAMS = 64
"""StreamSamples calls at once. Each holds two chunks at most, whatever its reader does."""
STREAMS_ROWS = STREAMS * CHUNKS_AHEAD * BATCH_SAMPLES
"""The rows that all of them may have in a queue at once."""
REPLY_COPIES = 3
"""A reply takes its size so often until it is read: the message, its bytes, and gRPC's own copy of them."""

_SHORTEST_RETRY = 0.05
_LONGEST_RETRY = 30.0
_UNREAD_RETRY = 1.0


class Admission:
    """Rows and bytes that are let in at once, for all models together. For one thread: that of the event loop.

    A call that takes long holds others up no longer than its turn: of its rows only two chunks wait in a queue at once,
    and only they count.

    Args:
        rows: The rows of Sample and InferCodes calls that may be in the queues at once.
        size: The bytes that those calls may take at once, requests and replies included, until the replies are sent.
    """

    def __init__(self, *, rows: int, size: int) -> None:
        self._most_rows, self._largest_size = rows, size
        self._streams = CallLimit(STREAMS, "StreamSamples calls")
        self.rows = 0
        """Those let in."""
        self.size = 0
        """Their bytes, and those of replies that are not sent yet."""

    @contextmanager
    def unary(self, session: BatchedSession, rows: int, size: int) -> Iterator[None]:
        """Lets in a call that answers in one message: its rows for as long as the block lasts, its bytes until it ends.

        A reply takes memory until its client has read it, or has gone; then the task that answers the call ends. To end
        it sooner would free nothing, since gRPC keeps what it sends for as long as the connection lasts.

        Args:
            session: What computes the answer.
            rows: How many rows it computes.
            size: The bytes that the call takes.

        Raises:
            InvalidRequestError: If it takes more than may ever be taken.
            DeadlineError: If the answer would come after the deadline.
            BusyError: If too much is under way.
        """
        if size > self._largest_size:
            raise InvalidRequestError(
                f"this request takes {size} bytes, and all together may take {self._largest_size}: split it",
                reason="LIMIT_EXCEEDED",
                metadata={"value": size, "limit": self._largest_size},
            )
        _check_deadline(session, rows)
        _note(session, rows)
        weight = min(rows, CHUNKS_AHEAD * BATCH_SAMPLES)
        too_many = self.rows + weight > self._most_rows
        if too_many or self.size + size > self._largest_size:
            raise BusyError(
                f"{self.rows} samples are under way, and {self.size} bytes, replies that are not read yet included: "
                f"with this request's {rows} samples and {size} bytes they would be over the limit of "
                f"{self._most_rows} samples or {self._largest_size} bytes at once: try again later",
                reason="QUEUE_FULL",
                metadata=(
                    {"rows": self.rows, "limit": self._most_rows}
                    if too_many
                    else {"bytes": self.size, "limit": self._largest_size}
                ),
                retry_after=_retry_after(session) if too_many else _UNREAD_RETRY,
            )
        self.rows += weight
        self.size += size
        cast("asyncio.Task[object]", asyncio.current_task()).add_done_callback(lambda _: self._give_back(size))
        try:
            yield
        finally:
            self.rows -= weight

    @contextmanager
    def stream(self, session: BatchedSession, rows: int) -> Iterator[None]:
        """Lets in a call that answers in chunks, for as long as the block lasts.

        Its deadline may come before its end, since it may be after no more than its beginning.

        Raises:
            DeadlineError: If even the first chunk would come after the deadline.
            BusyError: If too many are open.
        """
        _check_deadline(session, min(rows, BATCH_SAMPLES))
        _note(session, rows)
        with self._streams:
            yield

    def _give_back(self, size: int) -> None:
        self.size -= size


def _note(session: BatchedSession, rows: int) -> None:
    record = call_record.current()
    record.rows, record.role, record.provider = rows, session.role, session.execution_provider


def _check_deadline(session: BatchedSession, rows: int) -> None:
    remaining = deadline.current() - time.monotonic()
    needed = session.seconds_until_done(rows)
    if remaining < needed or remaining <= 0:
        raise DeadlineError(
            f"the deadline comes in {max(remaining, 0):.3g} seconds, but the answer would take at least {needed:.3g}: "
            "allow more time, or ask for less",
            metadata={"seconds": f"{needed:.3g}"},
        )


def _retry_after(session: BatchedSession) -> float:
    """Seconds until what waits now is done."""
    return min(max(session.seconds_until_done(0), _SHORTEST_RETRY), _LONGEST_RETRY)
