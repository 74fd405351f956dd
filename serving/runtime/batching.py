"""Dynamic batching: the rows of whoever waits, run together as soon as the model is free.

A row is run in whatever company is there: nothing waits for company longer than `delay`, 0 by default, and what arrives
during a run shares the next one. The company changes neither a row's bytes nor its fate: on the CPU a model gives the
same bytes for a row at any batch size and place, which is checked when it is loaded, and members that fail in company
are run again alone.
"""

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ..calls import call_record, deadline
from ..calls.call_record import CallRecord
from ..errors import DeadlineError
from ..limits import BATCH_SAMPLES
from .pace import Pace
from .row_queue import Entry, RowQueue
from .session import Array, NonFiniteOutputError, Session, TerminatedError, Termination, finite_rows

K = TypeVar("K")
V = TypeVar("V")

CHUNKS_AHEAD = 2
"""Chunks of one request that are queued at once: one that is run, and one so that no run waits for the event loop."""


@dataclass(frozen=True)
class QueueBounds:
    """What may wait for a session at once, and how long a row waits for company while the session is free."""

    rows: int = 2**14
    size: int = 2**29
    """In bytes."""
    delay: float = 0.0
    """In seconds."""


_Outcome = list[Array] | Exception


class _Share(asyncio.Future):  # type: ignore[type-arg]  # at run time it takes none
    """What a caller waits for. To cancel it calls `abandon`, at once and without the event loop."""

    abandon: Callable[[], None] | None = None
    """Forgotten with the answer: it holds what holds this."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancels it; returns whether it was still waited for."""
        cancelled = super().cancel(msg)
        if cancelled and self.abandon is not None:
            self.abandon()
            self.abandon = None
        return cancelled


@dataclass(eq=False)
class _Member:
    """One caller's share of a batch."""

    feeds: Mapping[str, Array]
    outputs: Sequence[str]
    future: _Share
    record: CallRecord

    def resolve(self, outcome: _Outcome) -> None:
        """Gives the caller what it waits for, if it still does; on its own event loop."""
        if self.future.done():
            return
        self.future.abandon = None
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class BatchedSession:
    """A session that many callers share, from one event loop or several. One thread of its own runs it.

    Args:
        session: The session; nobody else runs it from now on.
        role: "generator" or "encoder".
        queue: What may wait, and how long for company.
        rows_per_second: What it computes in full batches, as far as known.
        clock: What time it is, in seconds; the clock of the deadlines.
    """

    def __init__(
        self,
        session: Session,
        role: str,
        queue: QueueBounds,
        *,
        rows_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self.role = role
        self._delay = queue.delay
        self._clock = clock
        known = 1 / rows_per_second if rows_per_second else None
        self._pace = Pace(known, self._clock(), full_rows=BATCH_SAMPLES // 2)
        self._queue: RowQueue[_Member] = RowQueue(rows=queue.rows, size=queue.size, batch_rows=BATCH_SAMPLES)
        self._changed = threading.Condition()
        # Those taken from the queue whose callers still wait, and the run under way.
        self._awaited: set[Entry[_Member]] = set()
        self._running: Sequence[Entry[_Member]] = ()
        self._termination: Termination | None = None
        self._closed = False
        self._worker: threading.Thread | None = None

    @property
    def session(self) -> Session:
        """What it runs, to be described, not to be run."""
        return self._session

    @property
    def execution_provider(self) -> str:
        """The provider in effect."""
        return self._session.execution_provider

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU's contract holds: the same bytes for a sample at any batch size and place."""
        return self._session.on_cpu

    def depth(self) -> int:
        """The rows that wait."""
        return self._queue.rows

    def seconds_until_done(self, rows: int) -> float:
        """How long it takes at least until `rows` more are done; 0 while nothing is known of it."""
        ahead = self._queue.rows + sum(entry.rows for entry in self._running)
        return self._pace.seconds(ahead + rows, self._clock())

    async def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for 1 to 64 rows, in order; cancelled, the rows leave the queue.

        Raises:
            BusyError: If the queue is full.
            DeadlineError: If the calling task's deadline passed in the queue.
            NonFiniteOutputError: If an output of these rows holds NaN or infinity.
        """
        return await self.start(feeds, outputs)

    def start(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> "asyncio.Future[list[Array]]":
        """As `run`, but does not wait: the future is the running event loop's, and cancelling it cancels the run."""
        future = _Share()
        entry = Entry(
            owner=_Member(feeds, outputs, future, call_record.current()),
            rows=len(next(iter(feeds.values()))),
            size=sum(array.nbytes for array in feeds.values()),
            arrived=self._clock(),
            deadline=deadline.current(),
        )
        with self._changed:
            if self._closed:
                raise RuntimeError("the session is closed")
            self._queue.append(entry)
            if self._worker is None:
                # Not before it is needed: a model that is only looked at has no thread.
                self._worker = threading.Thread(target=self._work, name=f"run {self.role}", daemon=True)
                self._worker.start()
            self._changed.notify()
        future.abandon = partial(self._abandon, entry)
        return future

    def close(self) -> None:
        """Ends the thread once the queue is empty, and frees the session; not to be used again."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        if self._worker is not None:
            self._worker.join()
        # It is large, and whoever still knows of this may do so for long.
        del self._session

    def _abandon(self, entry: Entry[_Member]) -> None:
        """Takes out of the queue, or of the run under way, what nobody waits for any more."""
        with self._changed:
            if self._queue.remove(entry):
                return
            self._awaited.discard(entry)
            if self._termination is not None and self._awaited.isdisjoint(self._running):
                self._termination.terminate()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            outcomes = self._run(batch)
            if len(batch) > 1:
                for entry in batch:
                    if isinstance(outcomes[entry], Exception):
                        outcomes |= self._run([entry])
            _deliver(outcomes)
            # While it waits for the next one, it keeps nothing of this one.
            self._awaited = set()
            del batch, outcomes

    def _next_batch(self) -> list[Entry[_Member]] | None:
        """Waits for one; None where there will be none."""
        while True:
            with self._changed:
                while (wait := self._queue.due(self._delay) - self._clock()) > 0 and not self._closed:
                    self._changed.wait(min(wait, threading.TIMEOUT_MAX))
                if not self._queue:
                    return None
                batch, expired = self._queue.take(self._clock())
                # From here on, whoever cancels leaves these.
                self._awaited = set(batch)
            if expired:
                now = self._clock()
                for entry in expired:
                    entry.owner.record.queue_seconds += now - entry.arrived
                _deliver({entry: _expired() for entry in expired})
            if batch:
                return batch

    def _run(self, batch: Sequence[Entry[_Member]]) -> dict[Entry[_Member], _Outcome]:
        """Runs the members together; one that nobody waits for any more gets no run of its own."""
        with self._changed:
            if self._awaited.isdisjoint(batch):
                return dict.fromkeys(batch, TerminatedError("nobody waits"))
            self._running, self._termination = batch, Termination()
        rows = sum(entry.rows for entry in batch)
        names = list(dict.fromkeys(name for entry in batch for name in entry.owner.outputs))
        started = self._clock()
        try:
            feeds = {name: _joined([entry.owner.feeds[name] for entry in batch]) for name in batch[0].owner.feeds}
            arrays = dict(zip(names, self._session.run(feeds, names, self._termination), strict=True))
            shares = _shares(batch, arrays)
        except Exception as error:
            return dict.fromkeys(batch, error)
        finally:
            ended = self._clock()
            seconds = ended - started
            with self._changed:
                self._running, self._termination = (), None
                # A call that has ended already is counted already.
                counting = next((entry for entry in batch if entry in self._awaited), batch[0])
            counting.owner.record.runs.append((rows, seconds))
            for entry in batch:
                record = entry.owner.record
                record.queue_seconds += started - entry.arrived
                # Run again, it waits from now on.
                entry.arrived = ended
                record.compute_seconds += seconds
                record.batch_rows = max(record.batch_rows, rows)
                record.provider = self.execution_provider
        self._pace.learn(rows, seconds, ended)
        return shares


def _expired() -> DeadlineError:
    return DeadlineError("the deadline passed while the request waited to be computed", reason="DEADLINE_EXPIRED")


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _shares(batch: Sequence[Entry[_Member]], arrays: Mapping[str, Array]) -> dict[Entry[_Member], _Outcome]:
    """Each member's rows of its outputs; an error where they are not finite."""
    suspect = {
        name: finite_rows([array])
        for name, array in arrays.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    }
    shares: dict[Entry[_Member], _Outcome] = {}
    end = 0
    for entry in batch:
        start, end = end, end + entry.rows
        outputs = entry.owner.outputs
        unsound = [name for name in outputs if name in suspect and not suspect[name][start:end].all()]
        shares[entry] = (
            NonFiniteOutputError(f"the output {unsound[0]} holds values that are not finite (NaN or infinity)")
            if unsound
            else [arrays[name][start:end] for name in outputs]
        )
    return shares


def _deliver(outcomes: Mapping[Entry[_Member], _Outcome]) -> None:
    """Gives each caller what it waits for, waking each event loop once."""
    loops = defaultdict(list)
    for entry, outcome in outcomes.items():
        loops[entry.owner.future.get_loop()].append((entry.owner, outcome))
    for loop, resolved in loops.items():
        # Of a loop that has been closed, nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, resolved)


def _resolve(resolved: Sequence[tuple[_Member, _Outcome]]) -> None:
    for member, outcome in resolved:
        member.resolve(outcome)


async def in_order(started: "Iterable[tuple[K, asyncio.Future[V]]]") -> AsyncGenerator[tuple[K, V], None]:
    """The parts of one request in order, each with what it gave; the next is under way while one is used.

    Args:
        started: Starts a part whenever the next one is taken from it, and gives it its key.
    """
    parts = iter(started)
    ahead: deque[tuple[K, asyncio.Future[V]]] = deque()
    try:
        ahead.extend(islice(parts, CHUNKS_AHEAD))
        while ahead:
            key, future = ahead[0]
            value = await future
            ahead.popleft()
            ahead.extend(islice(parts, 1))
            yield key, value
    finally:
        _abandon_all(ahead)


async def all_in_order(started: "Iterable[tuple[K, asyncio.Future[V]]]") -> list[tuple[K, V]]:
    """As `in_order`, but all parts at once, without a generator's cost: most requests have one part."""
    parts = iter(started)
    ahead: deque[tuple[K, asyncio.Future[V]]] = deque()
    done: list[tuple[K, V]] = []
    try:
        ahead.extend(islice(parts, CHUNKS_AHEAD))
        while ahead:
            key, future = ahead[0]
            done.append((key, await future))
            ahead.popleft()
            ahead.extend(islice(parts, 1))
    finally:
        _abandon_all(ahead)
    return done


def _abandon_all(parts: "Iterable[tuple[K, asyncio.Future[V]]]") -> None:
    for _, future in parts:
        if not future.cancel() and not future.cancelled():
            # What else went wrong is not worth telling.
            future.exception()
