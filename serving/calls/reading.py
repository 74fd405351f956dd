"""How long an answer waits to be read.

A client that is there and does not read holds what the answer takes, and the place of a call; nothing else would end
that for as long as it answers pings.
"""

import asyncio
from typing import cast

READ_SECONDS = 60.0
"""A reply, or one message of a stream, is read within this time, or the call is cancelled."""


def cancel_if_unread() -> asyncio.TimerHandle:
    """Cancels the running task in 60 seconds, unless the handle is cancelled before."""
    task = cast("asyncio.Task[object]", asyncio.current_task())
    return asyncio.get_running_loop().call_later(READ_SECONDS, task.cancel)
