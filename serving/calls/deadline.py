"""When the caller of the running task stops waiting."""

import math
import time
from contextvars import ContextVar
from typing import Any

import grpc

_current: ContextVar[float] = ContextVar("deadline", default=math.inf)


def bind(context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    """Takes the call's deadline over for the running task, which answers this call alone, and for tasks it starts."""
    remaining = context.time_remaining()
    _current.set(math.inf if remaining is None else time.monotonic() + remaining)


def current() -> float:
    """On the monotonic clock, in seconds; infinity where there is none."""
    return _current.get()
