"""Who is next: rows that wait for a run, in the order of their arrival.

No thread, no clock: time is an argument, so that everything here can be tested as the pure data structure it is.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import BusyError

T = TypeVar("T")


@dataclass(eq=False)
class Entry(Generic[T]):
    """Rows that must be run together."""

    owner: T
    """Who waits for them."""
    rows: int
    """At least 1, at most those of one batch."""
    size: int
    """Their bytes."""
    arrived: float
    """Since when they wait, in seconds."""
    deadline: float = math.inf
    """When nobody waits for them any more, in seconds."""


class RowQueue(Generic[T]):
    """Entries in order, bounded in rows and bytes.

    Args:
        rows: How many rows may wait.
        size: How many bytes may wait.
        batch_rows: How many rows fit in one batch.
    """

    def __init__(self, *, rows: int, size: int, batch_rows: int) -> None:
        self._most_rows, self._largest_size, self._batch_rows = rows, size, batch_rows
        self._entries: OrderedDict[Entry[T], None] = OrderedDict()
        self.rows = 0
        """Those that wait."""
        self.size = 0
        """Their bytes."""

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._entries)

    def append(self, entry: Entry[T]) -> None:
        """Puts an entry behind the others.

        Raises:
            BusyError: If the queue would exceed its bounds; it stays as it was.
        """
        if self.rows + entry.rows > self._most_rows or self.size + entry.size > self._largest_size:
            raise BusyError(
                f"{self.rows} rows are waiting, as many as this server allows at once: try again later",
                reason="QUEUE_FULL",
            )
        self._entries[entry] = None
        self.rows += entry.rows
        self.size += entry.size

    def remove(self, entry: Entry[T]) -> bool:
        """Takes one entry out, wherever it stands; returns whether it was still waiting."""
        if entry not in self._entries:
            return False
        del self._entries[entry]
        self._forget(entry)
        return True

    def due(self, delay: float) -> float:
        """When the next batch is to be taken, in seconds: at once if one is full, else `delay` after its first arrival.

        Infinity where nothing waits.
        """
        if not self._entries:
            return math.inf
        return -math.inf if self.rows >= self._batch_rows else next(iter(self._entries)).arrived + delay

    def take(self, now: float) -> tuple[list[Entry[T]], list[Entry[T]]]:
        """Takes the first entries that fit in one batch, strictly in order, so that none is overtaken for ever.

        Returns:
            The batch, and the entries that were found to have expired on the way; both are out of the queue.
        """
        batch: list[Entry[T]] = []
        expired: list[Entry[T]] = []
        free = self._batch_rows
        while self._entries:
            entry = next(iter(self._entries))
            if entry.deadline <= now:
                expired.append(entry)
            elif entry.rows <= free:
                batch.append(entry)
                free -= entry.rows
            else:
                break
            self._entries.popitem(last=False)
            self._forget(entry)
        return batch, expired

    def _forget(self, entry: Entry[T]) -> None:
        self.rows -= entry.rows
        self.size -= entry.size
