"""How many calls of one kind may be open."""

from ..errors import BusyError


class CallLimit:
    """A limit on open calls of one kind, which a call is counted against within the context.

    Args:
        count: How many.
        kind: What they are, in the plural, for messages.
    """

    def __init__(self, count: int, kind: str) -> None:
        self._count, self._kind = count, kind
        self.open = 0

    def __enter__(self) -> None:
        """Counts a call.

        Raises:
            BusyError: If as many as allowed are open.
        """
        if self.open >= self._count:
            raise BusyError(
                f"{self._count} {self._kind} are open, as many as this server allows at once: make fewer at once, or "
                "try again later",
                reason="TOO_MANY_CALLS",
                metadata={"limit": self._count},
            )
        self.open += 1

    def __exit__(self, *exception: object) -> None:
        """Counts it no more."""
        self.open -= 1
