"""How many calls of one kind run at once: each occupies a thread."""

import threading

from .errors import BusyError


class ConcurrencyLimit:
    """A limit on open calls, which a call is counted against within the context.

    Args:
        count: How many.
        kind: What they are, in the plural, for messages.
    """

    def __init__(self, count: int, kind: str) -> None:
        self._message = (
            f"{count} {kind} are open, as many as this server allows at once: make fewer at once, or try again later"
        )
        self._free = threading.BoundedSemaphore(count)

    def __enter__(self) -> None:
        """Counts a call.

        Raises:
            BusyError: If as many as allowed are open.
        """
        if not self._free.acquire(blocking=False):
            raise BusyError(self._message)

    def __exit__(self, *exception: object) -> None:
        """Counts it no more."""
        self._free.release()
