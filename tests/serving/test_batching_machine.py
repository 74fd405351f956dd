"""BatchedSession against a list: a real model whose runs wait to be let go, and a clock that is moved by hand.

Nothing here depends on which thread is faster: after each step the machine waits for what its list says must happen
next, and what it says must not happen would show in the next run.
"""

import asyncio
import functools
import math
import queue
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from infosink.serving.calls import call_record, deadline
from infosink.serving.calls.call_record import CallRecord
from infosink.serving.errors import BusyError, DeadlineError
from infosink.serving.runtime.batching import BatchedSession, QueueBounds
from infosink.serving.runtime.session import NonFiniteOutputError, Session, TerminatedError, Termination
from onnx import TensorProto, helper, numpy_helper

BATCH = 64
LIMIT = 20
"""Seconds after which a test that waits has failed."""
TICK = 2.0**-10
"""In seconds. Sums of it are exact; and so short that whoever waits for one in real time looks at the clock again."""
ROW_BYTES = 8
"""Of two inputs, float32."""
TIMES = {"double": 2, "negative": -1}
"""What each output is of the numbers."""
SOUND, NOT_FINITE, RAISING = 0, 1, 2
"""A row's poison: the second has its own row of "double" be NaN, the third has the whole run fail."""


@functools.cache
def model() -> Session:
    """Doubles numbers, and negates them."""
    value, node = helper.make_tensor_value_info, helper.make_node
    graph = helper.make_graph(
        [
            node("ReduceMax", ["poison"], ["most"], keepdims=0),
            node("Cast", ["most"], ["position"], to=TensorProto.INT64),
            node("Gather", ["zeros", "position"], ["zero"]),
            node("Add", ["number", "zero"], ["sound"]),
            node("Neg", ["sound"], ["negative"]),
            node("Neg", ["poison"], ["opposite"]),
            node("Sqrt", ["opposite"], ["root"]),
            node("Sub", ["sound", "negative"], ["sum"]),
            node("Add", ["sum", "root"], ["double"]),
        ],
        "double",
        [value(name, TensorProto.FLOAT, ["batch", 1]) for name in ("number", "poison")],
        [value(name, TensorProto.FLOAT, ["batch", 1]) for name in TIMES],
        [numpy_helper.from_array(np.zeros(RAISING, np.float32), "zeros")],
    )
    content = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    return Session(content, Path("double.onnx"), "cpu", 1)


@dataclass
class Request:
    rows: int
    outputs: list[str]
    patience: float
    """In seconds."""
    poison: int
    poisoned: int
    """Which row is."""


REQUESTS = st.builds(
    Request,
    rows=st.integers(1, 20) | st.integers(1, BATCH),
    outputs=st.sampled_from([["double"], ["negative"], ["negative", "double"]]),
    patience=st.just(math.inf) | st.integers(0, 8).map(lambda ticks: ticks * TICK),
    poison=st.sampled_from([SOUND] * 8 + [NOT_FINITE, RAISING]),
    poisoned=st.integers(0, BATCH - 1),
)


@dataclass
class Run:
    """One that has begun."""

    numbers: list[float]
    outputs: list[str]
    termination: Termination
    may_go_on: threading.Event = field(default_factory=threading.Event)
    terminated: bool = False


class SteppedSession:
    """The model; each run of it waits until it is let go."""

    execution_provider = "CPUExecutionProvider"

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self.runs: list[Run] = []
        self.held = True

    def run(self, feeds: Mapping[str, np.ndarray], outputs: list[str], termination: Termination) -> list[np.ndarray]:
        run = Run(feeds["number"].ravel().tolist(), list(outputs), termination)
        self.runs.append(run)
        self.begun.put(run)
        # Without a limit: the test's own thread has one wherever it waits, and lets all go at the end.
        if self.held:
            run.may_go_on.wait()
        try:
            return model().run(feeds, outputs, termination)
        except TerminatedError:
            run.terminated = True
            raise

    def let_all_go(self) -> None:
        self.held = False
        for run in self.runs:
            run.may_go_on.set()


@dataclass(eq=False)
class Caller:
    """Rows that somebody waits for, and what the list says becomes of them."""

    request: Request
    numbers: list[float]
    arrived: float
    deadline: float
    future: "asyncio.Future[list[np.ndarray]]"
    record: CallRecord
    end: str = ""
    """One of "delivered", "failed", "expired" and "cancelled"; empty as long as there is none."""
    seconds: float = 0.0
    """From its arrival to its end."""
    heard: bool = False
    """Whether its answer has been checked."""

    @property
    def fails(self) -> bool:
        """Whether it does when it is run alone."""
        poison = self.request.poison
        return poison == RAISING or (poison == NOT_FINITE and "double" in self.request.outputs)


class BatchedSessionAgainstList(RuleBasedStateMachine):
    """A session under arbitrary use."""

    @initialize(rows=st.integers(BATCH, 1000), size=st.integers(BATCH, 1000), delay=st.sampled_from([0, 0, 2, 5]))
    def open(self, rows: int, size: int, delay: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.surprises: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, surprise: self.surprises.append(surprise))
        self.bounds = QueueBounds(rows=rows, size=ROW_BYTES * size, delay=delay * TICK)
        self.now = 0.0
        self.model = SteppedSession()
        self.session = BatchedSession(self.model, "generator", self.bounds, clock=lambda: self.now)
        self.callers: list[Caller] = []
        self.refused = self.started = self.numbered = 0
        self.waiting: list[Caller] = []
        # The batch that was taken, those of it that are run now, and those that are to be run again alone.
        self.batch: list[Caller] = []
        self.running: list[Caller] = []
        self.again: list[Caller] = []
        self.closed = False
        self.expected_runs: list[tuple[list[float], set[str], bool]] = []

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=8))
    def start(self, requests: list[Request]) -> None:
        # Whoever asks runs the loop, which may hear of any answer there is then.
        self.hear()
        for request in requests:
            self.started += 1
            rows = self.waiting_rows() + request.rows
            if rows > self.bounds.rows or ROW_BYTES * rows > self.bounds.size:
                with pytest.raises(BusyError):
                    self.ask(request)
                self.refused += 1
            else:
                caller = self.ask(request)
                self.callers.append(caller)
                self.waiting.append(caller)
                self.follow()
                self.hear()

    @precondition(lambda self: self.uninformed())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """One of those that have heard nothing yet: it waits, is run, or was answered while the loop was slow."""
        uninformed = self.uninformed()
        self.leave(uninformed[data.draw(st.integers(0, len(uninformed) - 1), label="which of them")])

    @precondition(lambda self: not self.nobody_waits_for_the_run())
    @rule()
    def cancel_the_run(self) -> None:
        """All that share it leave."""
        for caller in self.running:
            if caller.end != "cancelled":
                self.leave(caller)

    @rule(ticks=st.integers(1, 8))
    def advance(self, ticks: int) -> None:
        self.now += ticks * TICK
        self.follow()

    @precondition(lambda self: self.running)
    @rule()
    def finish(self) -> None:
        self.model.runs[-1].may_go_on.set()
        self.run_ended()
        self.follow()
        if not self.running:
            # Until the loop hears of it, the clock may not move: the run's end has not been noted yet.
            self.hear()

    @precondition(lambda self: self.answered())
    @rule()
    def turn(self) -> None:
        """Of the loop, which may be slow to hear of what was answered."""
        self.hear()

    @invariant()
    def only_those_wait_that_should(self) -> None:
        if hasattr(self, "session"):
            assert self.session.depth() == self.waiting_rows()

    @invariant()
    def a_run_is_ended_early_when_all_have_left(self) -> None:
        if hasattr(self, "session") and self.running:
            assert self.model.runs[-1].termination.requested == self.nobody_waits_for_the_run()

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        self.model.let_all_go()
        closing = threading.Thread(target=self.session.close, daemon=True)
        closing.start()
        closing.join(LIMIT)
        # A step that failed says more than the end that it left.
        if sys.exception() is None:
            assert not closing.is_alive()
            self.closed = True
            self.follow()
            while self.running:
                self.run_ended()
                self.follow()
            self.hear()
            self.check_end()
        self.loop.close()

    def ask(self, request: Request) -> Caller:
        numbers = np.arange(self.numbered, self.numbered + request.rows, dtype=np.float32)
        self.numbered += request.rows
        poison = np.zeros_like(numbers)
        poison[request.poisoned % request.rows] = request.poison
        feeds = {"number": numbers.reshape(-1, 1), "poison": poison.reshape(-1, 1)}
        record, until = CallRecord(), self.now + request.patience

        async def asking() -> "asyncio.Future[list[np.ndarray]]":
            # Where a call binds it, it is read off the real clock.
            deadline._current.set(until)
            call_record.bind(record)
            return self.session.start(feeds, request.outputs)

        future = self.loop.run_until_complete(asking())
        return Caller(request, numbers.tolist(), self.now, until, future, record)

    def leave(self, caller: Caller) -> None:
        assert caller.future.cancel()
        caller.end = "cancelled"
        if caller in self.waiting:
            self.waiting.remove(caller)

    def uninformed(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.end != "cancelled" and not caller.heard]

    def answered(self) -> list[Caller]:
        return [caller for caller in self.uninformed() if caller.end]

    def hear(self) -> None:
        if answered := self.answered():
            futures = [caller.future for caller in answered]
            _, missing = self.loop.run_until_complete(asyncio.wait(futures, timeout=LIMIT))
            assert not missing
        for caller in answered:
            self.check_answer(caller)
            caller.heard = True

    def waiting_rows(self) -> int:
        return sum(caller.request.rows for caller in self.waiting)

    def nobody_waits_for_the_run(self) -> bool:
        return all(caller.end == "cancelled" for caller in self.running)

    def follow(self) -> None:
        """Lets the list take what the session must have taken by now, and waits until it has."""
        while not self.running and self.waiting:
            full = self.waiting_rows() >= BATCH
            if not (full or self.closed or self.waiting[0].arrived + self.bounds.delay <= self.now):
                return
            free = BATCH
            while self.waiting and (self.waiting[0].deadline <= self.now or self.waiting[0].request.rows <= free):
                caller = self.waiting.pop(0)
                if caller.deadline <= self.now:
                    caller.end, caller.seconds = "expired", self.now - caller.arrived
                else:
                    self.batch.append(caller)
                    free -= caller.request.rows
            if self.batch:
                self.run_begins(list(self.batch))
            else:
                self.hear()

    def run_begins(self, members: list[Caller]) -> None:
        self.running = members
        numbers = [number for caller in members for number in caller.numbers]
        self.expected_runs.append((numbers, {name for caller in members for name in caller.request.outputs}, False))
        if not self.closed:
            run = self.model.begun.get(timeout=LIMIT)
            assert run.numbers == numbers

    def run_ended(self) -> None:
        """What follows from it: the batch's next run, or its members' ends."""
        whole = self.running == self.batch
        abandoned = self.nobody_waits_for_the_run()
        if abandoned:
            self.expected_runs[-1] = (*self.expected_runs[-1][:2], True)
        if whole and len(self.batch) > 1:
            raises = abandoned or any(caller.request.poison == RAISING for caller in self.batch)
            self.again = [caller for caller in self.batch if raises or caller.fails]
        for caller in self.running:
            caller.seconds = self.now - caller.arrived
        while self.again:
            caller = self.again.pop(0)
            if caller.end != "cancelled":
                self.run_begins([caller])
                return
        for caller in self.batch:
            if caller.end != "cancelled":
                caller.end = "failed" if caller.fails else "delivered"
        self.running, self.batch = [], []

    def check_answer(self, caller: Caller) -> None:
        error = caller.future.exception()
        if caller.end == "delivered":
            assert error is None, error
            expected = [[TIMES[name] * number for number in caller.numbers] for name in caller.request.outputs]
            assert [array.ravel().tolist() for array in caller.future.result()] == expected
        elif caller.end == "expired":
            assert isinstance(error, DeadlineError)
        else:
            assert error is not None
            assert not isinstance(error, DeadlineError | TerminatedError)
            assert isinstance(error, NonFiniteOutputError) == (caller.request.poison == NOT_FINITE)
        assert caller.record.queue_seconds + caller.record.compute_seconds == caller.seconds

    def check_end(self) -> None:
        runs = [(run.numbers, set(run.outputs), run.terminated) for run in self.model.runs]
        assert runs == self.expected_runs
        assert all(len(numbers) <= BATCH for numbers, _, _ in runs)
        counted = [rows for caller in self.callers for rows, _ in caller.record.runs]
        assert sorted(counted) == sorted(len(numbers) for numbers, _, _ in runs)
        ends = Counter(caller.end for caller in self.callers)
        assert ends.keys() <= {"delivered", "failed", "expired", "cancelled"}
        assert self.started == self.refused + ends.total()
        assert all(caller.heard or caller.end == "cancelled" for caller in self.callers)
        assert self.session.depth() == 0
        assert not self.surprises
        with pytest.raises(RuntimeError, match="closed"):
            self.ask(Request(1, ["double"], math.inf, SOUND, 0))


TestBatchedSessionAgainstList = BatchedSessionAgainstList.TestCase
TestBatchedSessionAgainstList.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True
)
