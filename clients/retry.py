"""Calls that are made again after a failure that passes."""

import random
import threading
import time
from typing import Any

import grpc

from .status import details_of

# Seconds before the second try, and how many times longer each further pause is.
_FIRST_PAUSE = 0.25
_GROWTH = 4.0
_LONGEST_PAUSE = 10.0


class Attempts:
    """The tries of one call, which share its deadline.

    Every call may be made again: none changes the server, and a seed's samples stay the same.

    Args:
        tries: How many there may be.
        timeout: Seconds for all of them together.
        closed: Set when the client is closed, after which there are no more.
    """

    def __init__(self, tries: int, timeout: float, closed: threading.Event) -> None:
        self._further = tries - 1
        self._closed = closed
        self._pause = _FIRST_PAUSE
        self._deadline = time.monotonic() + timeout

    @property
    def time_left(self) -> float:
        """Seconds for the next try."""
        return max(0.0, self._deadline - time.monotonic())

    def pause(self, error: Any, *, server_is_known: bool) -> bool:
        """Waits, where another try makes sense, until it does.

        It makes sense where the server says when to come back, and where one that has answered before is gone. The
        pause is at least as long as the server asks for; chance spreads out the clients that were refused together.
        No try comes after the client is closed.

        Args:
            error: The grpc.RpcError of the last try.
            server_is_known: Whether the server has answered before.

        Returns:
            Whether to try again.
        """
        code, asked = error.code(), details_of(error).retry_after
        passes = code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE) and asked is not None
        # Calls are this end's to cancel: a server's gRPC answers so to what comes while it closes.
        gone = code is grpc.StatusCode.CANCELLED or (code is grpc.StatusCode.UNAVAILABLE and server_is_known)
        pause = (asked or 0.0) + self._pause * random.uniform(0.5, 1)  # noqa: S311
        if not (passes or gone) or self._further < 1 or pause >= self.time_left:
            return False
        self._further -= 1
        self._pause = min(self._pause * _GROWTH, _LONGEST_PAUSE)
        return not self._closed.wait(pause)
