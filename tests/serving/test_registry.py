"""Models change their names' bearers while calls use them."""

import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from infosink.serving.errors import StartupError, UnknownModelError
from infosink.serving.models.registry import Registry
from infosink.serving.models.served_model import ServedModel
from infosink.v1.sampling_service_pb2 import Draw, SampleRequest, StreamSamplesRequest

LIMIT = 60


@pytest.fixture
def load(load_file: Callable, schema_1: Path) -> Callable[..., ServedModel]:
    def load(name: str) -> ServedModel:
        return load_file(schema_1 / "points-gen.onnx", name=name)

    return load


def test_models_are_found_by_name_and_the_first_without(load: Callable) -> None:
    first, second = load("first"), load("second")
    registry = Registry([first, second])
    assert registry.get("") is registry.get("first") is first
    assert registry.get("second") is second
    assert registry.all() == [first, second]
    for look in (registry.get, lambda name: registry.using(name).__enter__()):
        with pytest.raises(UnknownModelError, match='"third": those served are "first", "second"'):
            look("third")


def test_what_cannot_be_served_together_changes_nothing(load: Callable) -> None:
    first = load("first")
    registry = Registry([first])
    with pytest.raises(StartupError, match="two models are named first"):
        registry.swap([first, load("second"), load("first")])
    many = [load("one")]
    many[0].description.model.config_json = '{"note": "' + "x" * 2**22 + '"}'
    with pytest.raises(StartupError, match="exceed 4 MiB in all"):
        registry.swap([first, *many])
    assert registry.all() == [first]


def runs() -> set[threading.Thread]:
    """The threads that run models."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("run ")}


def test_a_model_is_closed_when_its_last_call_has_ended(start_server: Callable, load: Callable) -> None:
    others = runs()
    server = start_server(load("points"))
    registry = server.server.registry
    # Nobody reads so many, so that the call is still open when the model is replaced.
    stream = server.stub.StreamSamples(StreamSamplesRequest(draw=Draw(count=1_000_000)))
    next(stream)
    (old,) = runs() - others
    swapped = threading.Event()

    def swap() -> None:
        registry.swap([load("points")])
        swapped.set()

    server.loop.call_soon_threadsafe(swap)
    assert swapped.wait(LIMIT)
    server.stub.Sample(SampleRequest(draw=Draw(count=1)))
    assert len(runs() - others) == 2
    assert len(next(stream).batch.categories) == 64
    assert old.is_alive()
    stream.cancel()
    old.join(LIMIT)
    assert not old.is_alive()
    server.stub.Sample(SampleRequest(draw=Draw(count=1)))


def test_a_model_that_nobody_uses_is_closed_at_once(start_server: Callable, load: Callable) -> None:
    others = runs()
    server = start_server(load("points"), load("gone"))
    server.stub.Sample(SampleRequest(model="gone", draw=Draw(count=1)))
    (old,) = runs() - others
    registry = server.server.registry
    server.loop.call_soon_threadsafe(lambda: registry.swap(registry.all()[:1]))
    old.join(LIMIT)
    assert not old.is_alive()
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Sample(SampleRequest(model="gone", draw=Draw(count=1)))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
