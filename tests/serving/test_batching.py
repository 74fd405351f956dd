"""Rows of many callers in one run: together as soon as the model is free, and none the worse for its company."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infosink.serving.calls import deadline
from infosink.serving.errors import BusyError, DeadlineError
from infosink.serving.runtime.batching import BatchedSession, QueueBounds, in_order
from infosink.serving.runtime.session import NonFiniteOutputError
from onnx import TensorProto, helper, numpy_helper

LIMIT = 60
SAMPLE, PIXELS = ["sample"], ["pixels", "sample"]


@pytest.fixture(scope="module")
def shared_model(make_held: Callable) -> Iterator[Any]:
    held = make_held()
    yield held
    held.model.close()


def within_limit(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, LIMIT))


def test_what_waits_is_run_together_as_soon_as_the_model_is_free(held_model: Callable, prior: Callable) -> None:
    held = held_model()

    async def test() -> None:
        held.generator.hold()
        tasks = [asyncio.create_task(held.model.generator.run(prior(1), SAMPLE))]
        await held.generator.until_run()
        tasks += [asyncio.create_task(held.model.generator.run(prior(rows), SAMPLE)) for rows in (3, 20, 41, 1, 64, 2)]
        await asyncio.sleep(0)
        assert held.model.generator.depth() == 131
        held.generator.release()
        assert [len((await task)[0]) for task in tasks] == [1, 3, 20, 41, 1, 64, 2]

    within_limit(test())
    assert [rows for rows, _ in held.generator.runs] == [1, 64, 1, 64, 2]
    assert held.model.generator.depth() == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 64), st.sampled_from([SAMPLE, PIXELS])), min_size=1, max_size=12))
def test_company_changes_no_byte(shared_model, prior: Callable, requests: list[tuple[int, list[str]]]) -> None:
    model, generator, encoder = shared_model.model, shared_model.generator, shared_model.encoder
    asked = [(prior(rows, first=1000 * number), outputs) for number, (rows, outputs) in enumerate(requests)]
    alone = [generator.real.run(feeds, outputs) for feeds, outputs in asked]
    codes = ["category_probability", "style_mean", "style_std"]

    async def test() -> None:
        for held in (generator, encoder):
            held.hold()
        first = [model.generator.start(prior(1), SAMPLE), model.encoder.start({"sample": alone[0][-1][:1]}, codes)]
        drawn = [model.generator.start(feeds, outputs) for feeds, outputs in asked]
        read = [model.encoder.start({"sample": arrays[-1]}, codes) for arrays in alone]
        for held in (generator, encoder):
            held.release()
        await asyncio.gather(*first)
        for arrays, future, reading in zip(alone, drawn, read, strict=True):
            assert [array.tobytes() for array in await future] == [array.tobytes() for array in arrays]
            read_alone = encoder.real.run({"sample": arrays[-1]}, codes)
            assert [array.tobytes() for array in await reading] == [array.tobytes() for array in read_alone]

    before = len(generator.runs)
    within_limit(test())
    assert all(rows <= 64 for rows, _ in [*generator.runs, *encoder.runs])
    assert sum(rows for rows, _ in generator.runs[before:]) == 1 + sum(rows for rows, _ in requests)


def test_only_what_somebody_wants_is_made(held_model: Callable, prior: Callable) -> None:
    held = held_model()

    async def test() -> None:
        held.generator.hold()
        tasks = [asyncio.create_task(held.model.generator.run(prior(1), SAMPLE))]
        await held.generator.until_run()
        wanted = [SAMPLE, PIXELS, SAMPLE]
        tasks += [asyncio.create_task(held.model.generator.run(prior(30), outputs)) for outputs in wanted]
        await asyncio.sleep(0)
        held.generator.release()
        assert [len(await task) for task in tasks] == [1, 1, 2, 1]

    within_limit(test())
    assert [(rows, sorted(outputs)) for rows, outputs in held.generator.runs] == [
        (1, ["sample"]),
        (60, ["pixels", "sample"]),
        (30, ["sample"]),
    ]


def poisoned(model: onnx.ModelProto) -> None:
    """Has a lookup fail where any noise of the batch exceeds 8, and the square root of a rest where any exceeds 6."""
    graph = model.graph
    constants = {"table": np.zeros(1, np.float32), "most": np.array(8, np.float32), "more": np.array(6, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    graph.initializer.append(zero)
    maker = next(node for node in graph.node if "sample" in node.output)
    maker.output[0] = "sound"
    added = [
        helper.make_node("ReduceMax", ["noise"], ["peak"], keepdims=0),
        helper.make_node("Greater", ["peak", "most"], ["too_large"]),
        helper.make_node("Cast", ["too_large"], ["position"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "position"], ["nothing"]),
        helper.make_node("Min", ["peak", "most"], ["bounded"]),
        helper.make_node("Sub", ["more", "bounded"], ["rest"]),
        helper.make_node("Sqrt", ["rest"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["nothing_either"]),
        helper.make_node("Add", ["sound", "nothing"], ["sounder"]),
        helper.make_node("Add", ["sounder", "nothing_either"], ["sample"]),
    ]
    at = list(graph.node).index(maker) + 1
    nodes = [*graph.node[:at], *added, *graph.node[at:]]
    del graph.node[:]
    graph.node.extend(nodes)


@pytest.mark.parametrize("noise", [9, 7])
def test_a_bad_row_among_eight_fails_alone(
    held_model: Callable, prior: Callable, altered: Callable[..., Path], schema_1: Path, noise: float
) -> None:
    # Its whole batch raises, or is NaN.
    held = held_model(altered("gen.onnx", poisoned), encoder=schema_1 / "q.onnx")
    feeds = [prior(3, first=10 * number) for number in range(8)]
    feeds[5]["noise"][1, 0] = noise

    async def test() -> list[Any]:
        held.generator.hold()
        first = asyncio.create_task(held.model.generator.run(prior(1), SAMPLE))
        await held.generator.until_run()
        tasks = [asyncio.create_task(held.model.generator.run(each, PIXELS)) for each in feeds]
        await asyncio.sleep(0)
        held.generator.release()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(asyncio.wait_for(test(), LIMIT))
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [number == 5 for number in range(8)]
    assert isinstance(outcomes[5], NonFiniteOutputError) == (noise == 7)
    for number in {0, 1, 2, 3, 4, 6, 7}:
        alone = held.generator.real.run(feeds[number], PIXELS)
        assert [array.tobytes() for array in outcomes[number]] == [array.tobytes() for array in alone]
    # Together, and then each alone.
    assert [rows for rows, _ in held.generator.runs] == [1, 24] + [3] * 8


def test_a_large_request_takes_turns_and_leaves_no_gap(held_model: Callable, prior: Callable) -> None:
    held = held_model()
    generator = held.model.generator

    async def test() -> None:
        def chunks() -> Any:
            for start in range(0, 640, 64):
                yield start, generator.start(prior(64, first=start), SAMPLE)

        async def large() -> list[int]:
            return [start async for start, _ in in_order(chunks())]

        held.generator.hold()
        first = asyncio.create_task(large())
        await held.generator.until_run()
        # One chunk runs and one waits, so that the session will not be idle; no more, so that others take turns.
        assert generator.depth() == 64
        small = asyncio.create_task(generator.run(prior(1), SAMPLE))
        await asyncio.sleep(0)
        held.generator.release()
        await small
        assert [rows for rows, _ in held.generator.runs][:3] == [64, 64, 1]
        assert await first == list(range(0, 640, 64))

    within_limit(test())


def test_what_has_expired_is_not_run(held_model: Callable, prior: Callable) -> None:
    held = held_model()

    async def late() -> None:
        deadline.bind(SimpleNamespace(time_remaining=lambda: 0.0))
        with pytest.raises(DeadlineError):
            await held.model.generator.run(prior(7), SAMPLE)

    async def test() -> None:
        held.generator.hold()
        first = asyncio.create_task(held.model.generator.run(prior(1), SAMPLE))
        await held.generator.until_run()
        expired = asyncio.create_task(late())
        await asyncio.sleep(0)
        in_time = asyncio.create_task(held.model.generator.run(prior(5), SAMPLE))
        await asyncio.sleep(0)
        assert held.model.generator.depth() == 12
        held.generator.release()
        await asyncio.gather(first, expired, in_time)

    within_limit(test())
    assert [rows for rows, _ in held.generator.runs] == [1, 5]


def test_who_leaves_the_queue_is_not_run(held_model: Callable, prior: Callable) -> None:
    held = held_model()

    async def test() -> None:
        held.generator.hold()
        first = asyncio.create_task(held.model.generator.run(prior(1), SAMPLE))
        await held.generator.until_run()
        waiting = [asyncio.create_task(held.model.generator.run(prior(rows), SAMPLE)) for rows in (7, 5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert held.model.generator.depth() == 5
        held.generator.release()
        await asyncio.gather(first, waiting[1])

    within_limit(test())
    assert [rows for rows, _ in held.generator.runs] == [1, 5]


@pytest.mark.parametrize(("leaving", "terminated"), [(1, []), (2, [4])])
def test_a_run_ends_early_only_when_all_have_left(
    held_model: Callable, prior: Callable, leaving: int, terminated: list[int]
) -> None:
    held = held_model()
    generator = held.model.generator

    async def test() -> None:
        held.generator.hold()
        # Both wait for the first run, and so share the second.
        first = asyncio.create_task(generator.run(prior(1), SAMPLE))
        await held.generator.until_run()
        members = [asyncio.create_task(generator.run(prior(2), SAMPLE)) for _ in range(2)]
        await asyncio.sleep(0)
        held.generator.release_one()
        await first
        await held.generator.until_run()
        for member in members[:leaving]:
            member.cancel()
        await asyncio.wait(members[:leaving])
        held.generator.release()
        results = await asyncio.gather(*members, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, leaving == 2]
        assert len((await generator.run(prior(3), SAMPLE))[0]) == 3

    within_limit(test())
    assert held.generator.terminated == terminated
    assert [rows for rows, _ in held.generator.runs] == [1, 4, 3]


def test_what_was_answered_is_kept_by_nobody(held_model: Callable, prior: Callable) -> None:
    """Neither by the answer, for the cycle collector to find, nor by a worker that waits for more."""
    model = held_model().model

    async def test() -> None:
        asked = prior(2)
        kept.append(weakref.ref(asked["noise"]))
        await model.generator.run(asked, SAMPLE)

    kept: list[weakref.ref[Any]] = []
    gc.disable()
    try:
        within_limit(test())
        model.generator.close()
        assert kept[0]() is None
    finally:
        gc.enable()


def test_two_event_loops_may_share_a_session(held_model: Callable, prior: Callable) -> None:
    held = held_model()
    expected = held.generator.real.run(prior(64), SAMPLE)[0].tobytes()
    sizes: list[bool] = []

    def use() -> None:
        async def many() -> None:
            for _ in range(20):
                results = await asyncio.gather(*[held.model.generator.run(prior(64), SAMPLE) for _ in range(3)])
                sizes.extend(result[0].tobytes() == expected for result in results)

        asyncio.run(many())

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sizes == [True] * 120


def test_a_full_queue_refuses(held_model: Callable, prior: Callable) -> None:
    held = held_model(rows=10)

    async def test() -> None:
        held.generator.hold()
        first = asyncio.create_task(held.model.generator.run(prior(10), SAMPLE))
        await held.generator.until_run()
        waiting = asyncio.create_task(held.model.generator.run(prior(9), SAMPLE))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await held.model.generator.run(prior(2), SAMPLE)
        held.generator.release()
        await asyncio.gather(first, waiting)

    within_limit(test())


def test_closing_ends_what_waits_for_company(held_model: Callable, prior: Callable) -> None:
    held = held_model()
    session = BatchedSession(held.generator, "generator", QueueBounds(delay=3600))

    async def test() -> None:
        waiting = asyncio.create_task(session.run(prior(2), SAMPLE))
        await asyncio.sleep(0)
        assert session.depth() == 2
        # A whole batch waits for nobody.
        await session.run(prior(62), SAMPLE)
        await waiting
        waiting = asyncio.create_task(session.run(prior(5), SAMPLE))
        await asyncio.sleep(0)
        await asyncio.to_thread(session.close)
        await waiting
        with pytest.raises(RuntimeError, match="closed"):
            await session.run(prior(1), SAMPLE)

    within_limit(test())
    assert [rows for rows, _ in held.generator.runs] == [64, 5]
