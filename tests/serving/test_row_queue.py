"""RowQueue against a list: nothing lost, nothing twice, nothing out of turn."""

import math
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from infosink.serving.errors import BusyError
from infosink.serving.runtime.row_queue import Entry, RowQueue

BATCH = 64


class QueueAgainstList(RuleBasedStateMachine):
    """A queue under arbitrary use, with a clock of its own, beside the plainest one that could be."""

    @initialize(rows=st.integers(BATCH, 300), size=st.integers(100, 5000))
    def start(self, rows: int, size: int) -> None:
        self.most_rows, self.largest_size = rows, size
        self.queue: RowQueue[int] = RowQueue(rows=rows, size=size, batch_rows=BATCH)
        self.waiting: list[Entry[int]] = []
        self.ends: Counter[str] = Counter()
        self.appended = 0
        self.now = 0.0

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(rows=st.integers(1, BATCH), size=st.integers(0, 400), patience=st.just(math.inf) | st.floats(0, 4))
    def append(self, rows: int, size: int, patience: float) -> None:
        entry = Entry(self.appended, rows, size, self.now, self.now + patience)
        self.appended += 1
        waiting_rows = sum(one.rows for one in self.waiting)
        waiting_size = sum(one.size for one in self.waiting)
        if waiting_rows + rows <= self.most_rows and waiting_size + size <= self.largest_size:
            self.queue.append(entry)
            self.waiting.append(entry)
        else:
            with pytest.raises(BusyError):
                self.queue.append(entry)
            self.ends["refused"] += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(entry)
        assert not self.queue.remove(entry)
        self.waiting.remove(entry)
        self.ends["removed"] += 1

    @rule()
    def take(self) -> None:
        batch, expired = self.queue.take(self.now)
        assert sum(entry.rows for entry in batch) <= BATCH
        assert all(entry.deadline > self.now for entry in batch)
        assert all(entry.deadline <= self.now for entry in expired)
        # Who came first goes first, and whoever could have come along did.
        gone = sorted([*batch, *expired], key=lambda entry: entry.owner)
        assert gone == self.waiting[: len(gone)]
        assert [entry.owner for entry in batch] == sorted(entry.owner for entry in batch)
        self.waiting = self.waiting[len(gone) :]
        if self.waiting:
            following = self.waiting[0]
            assert following.deadline > self.now
            assert sum(entry.rows for entry in batch) + following.rows > BATCH
        self.ends["taken"] += len(batch)
        self.ends["expired"] += len(expired)

    @rule(delay=st.floats(0, 0.01))
    def due(self, delay: float) -> None:
        if not self.waiting:
            assert self.queue.due(delay) == math.inf
        elif sum(entry.rows for entry in self.waiting) >= BATCH:
            assert self.queue.due(delay) <= self.now
        else:
            assert self.queue.due(delay) == self.waiting[0].arrived + delay

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "queue"):
            assert len(self.queue) == len(self.waiting)
            assert self.queue.rows == sum(entry.rows for entry in self.waiting) <= self.most_rows
            assert self.queue.size == sum(entry.size for entry in self.waiting) <= self.largest_size
            assert self.appended == self.ends.total() + len(self.waiting)


TestQueueAgainstList = QueueAgainstList.TestCase
TestQueueAgainstList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_nobody_starves_behind_small_entries() -> None:
    queue: RowQueue[str] = RowQueue(rows=10_000, size=10**6, batch_rows=BATCH)
    queue.append(Entry("small", 1, 1, 0))
    queue.append(Entry("whole", BATCH, 1, 0))
    for _ in range(3):
        # As many small ones as fit arrive before each batch.
        for _ in range(BATCH):
            queue.append(Entry("small", 1, 1, 0))
        if "whole" in [entry.owner for entry in queue.take(0)[0]]:
            return
    pytest.fail("the whole batch was overtaken again and again")
