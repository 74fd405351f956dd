"""What the client makes of a refusal's details, and when it asks again."""

import json
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    DebugInfo,
    ErrorInfo,
    PreconditionFailure,
    RequestInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from infosink.clients import (
    Client,
    InfosinkError,
    MalformedReplyError,
    RequestRefusedError,
    ServerFailedError,
    ServerUnreachableError,
    Violation,
)
from infosink.v1 import sampling_service_pb2 as v1
from infosink.v1 import sampling_service_pb2_grpc

Start = Callable[..., str]
BUSY, GONE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
CANCELLED = grpc.StatusCode.CANCELLED
LIMIT = 60
MODEL = Path(__file__).parents[1] / "compatibility" / "schema-1" / "gen.onnx"


def status(code: grpc.StatusCode, message: str, *details: Message) -> Status:
    status = Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def soon(seconds: float = 0.001) -> RetryInfo:
    retry = RetryInfo()
    retry.retry_delay.FromTimedelta(timedelta(seconds=seconds))
    return retry


@contextmanager
def closed_after(event: threading.Event, client: Client) -> Iterator[None]:
    """Closes the client from another thread once something has happened; it is closed at the end."""

    def close() -> None:
        event.wait(LIMIT)
        client.close()

    closing = threading.Thread(target=close)
    closing.start()
    yield
    closing.join(LIMIT)


class Refusals:
    """Aborts calls in turn with the given statuses; None lets one pass, and all pass after the last."""

    def __init__(self, *statuses: Status | None) -> None:
        self._statuses = list(statuses)
        self.seen: list[object] = []

    def __call__(self, request: Message, context: grpc.ServicerContext) -> None:
        self.seen.append(type(request).FromString(request.SerializeToString()))
        if self._statuses and (refusal := self._statuses.pop(0)):
            context.abort_with_status(rpc_status.to_status(refusal))


def test_a_refusal_carries_the_fields_at_fault(careless: Start) -> None:
    bad, failed = BadRequest(), PreconditionFailure()
    bad.field_violations.add(field="draw.count", description="too\x1b many", reason="LIMIT_EXCEEDED")
    failed.violations.add(type="LABEL_UNREACHABLE", subject="draw.codes[0].label", description="no such label")
    information = ErrorInfo(reason="LIMIT_EXCEEDED", domain="infosink")
    refusals = Refusals(
        status(grpc.StatusCode.INVALID_ARGUMENT, "too many", information, DebugInfo(detail="x"), bad),
        status(grpc.StatusCode.FAILED_PRECONDITION, "no such label", failed),
    )
    with Client(careless(refuse=refusals)) as client:
        with pytest.raises(RequestRefusedError, match=r"^too many$") as refusal:
            client.sample(1)
        assert refusal.value.reason == "LIMIT_EXCEEDED"
        assert refusal.value.violations == [Violation("draw.count", "too  many")]
        assert refusal.value.retry_after is None
        with pytest.raises(RequestRefusedError) as refusal:
            client.sample(1)
        assert refusal.value.violations == [Violation("draw.codes[0].label", "no such label")]
        assert refusal.value.reason == ""


def test_a_failure_carries_its_request_id(careless: Start) -> None:
    refusals = Refusals(status(grpc.StatusCode.INTERNAL, "internal error", RequestInfo(request_id="5f")))
    with Client(careless(refuse=refusals)) as client, pytest.raises(ServerFailedError) as failure:
        client.sample(1)
    assert failure.value.request_id == "5f"


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"\x1a\x02\xff\xff", b"\x1a\x2e\n(type.googleapis.com/google.rpc.BadRequest\x12\x02\xff\xff"]
)
def test_details_that_cannot_be_read_leave_the_message(careless: Start, garbage: bytes) -> None:
    def refuse(request: object, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata([("grpc-status-details-bin", garbage)])
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many")

    with Client(careless(refuse=refuse)) as client, pytest.raises(RequestRefusedError, match=r"^too many$") as refusal:
        client.sample(1)
    assert refusal.value.violations == []


@pytest.mark.parametrize("code", [BUSY, GONE])
def test_a_server_that_says_when_to_come_back_is_asked_again(careless: Start, code: grpc.StatusCode) -> None:
    refusals = Refusals(status(code, "full", soon()), status(code, "full", soon()))
    with Client(careless(refuse=refusals)) as client:
        assert len(client.sample(3, seed=1)) == 3
        assert len(refusals.seen) == 3
        assert refusals.seen[0] == refusals.seen[2]
        assert len(client.infer(np.zeros((2, 6, 6), np.uint8))) == 2


@pytest.mark.parametrize(
    ("refusal", "tries"),
    [
        # A message over its limit stays over it.
        (status(BUSY, "message larger than max"), 4),
        (status(BUSY, "full", soon()), 1),
        # Longer than this client would wait.
        (status(BUSY, "full", soon(3)), 4),
        (status(grpc.StatusCode.INVALID_ARGUMENT, "bad", soon()), 4),
        (status(grpc.StatusCode.INTERNAL, "failed"), 4),
        (status(grpc.StatusCode.DEADLINE_EXCEEDED, "late"), 4),
        (status(GONE, "stopping", soon()), 1),
    ],
)
def test_what_does_not_pass_is_asked_once(careless: Start, refusal: Status, tries: int) -> None:
    refusals = Refusals(refusal)
    errors = {BUSY.value[0]: RequestRefusedError, grpc.StatusCode.INVALID_ARGUMENT.value[0]: RequestRefusedError}
    errors[grpc.StatusCode.INTERNAL.value[0]] = ServerFailedError
    expected = errors.get(refusal.code, ServerUnreachableError)
    with Client(careless(refuse=refusals), timeout=2, tries=tries) as client:
        with pytest.raises(expected) as error:
            client.sample(1)
        assert len(refusals.seen) == 1
        if expected is RequestRefusedError:
            assert error.value.retry_after in ((0.001, 3) if refusal.details else (None,))


def test_a_server_that_stays_busy_is_asked_as_often_as_allowed(careless: Start) -> None:
    refusals = Refusals(*[status(BUSY, "full", soon())] * 9)
    with Client(careless(refuse=refusals), tries=2) as client:
        with pytest.raises(RequestRefusedError, match="full"):
            client.sample(1)
        assert len(refusals.seen) == 2
        with pytest.raises(RequestRefusedError, match="full"):
            list(client.stream(1))
        assert len(refusals.seen) == 4


@pytest.mark.parametrize("code", [GONE, CANCELLED])
def test_a_broken_stream_goes_on_at_the_next_index(careless: Start, code: grpc.StatusCode) -> None:
    breaking = Refusals(None, status(code, "gone"))

    def three_of_eight(batch: v1.SampleBatch) -> None:
        if len(breaking.seen) == 1:
            del batch.categories[3:], batch.labels[3:]
            for tensor in (batch.style, batch.tensor):
                tensor.data = tensor.data[: 3 * len(tensor.data) // 8]
                tensor.shape[0] = 3

    def batches() -> Iterator[None]:
        yield None
        if len(breaking.seen) == 1:
            yield None

    with Client(careless(refuse=breaking, spoil=three_of_eight, batches=batches)) as client:
        (samples,) = client.stream(8, seed=5, first_index=100)
    assert (len(samples), samples.first_index) == (8, 100)
    asked = [(request.draw.first_index, request.draw.count, request.draw.seed) for request in breaking.seen]
    # The second is the first call's, before its second batch.
    assert asked == [(100, 8, 5), (103, 8, 5), (103, 5, 5)]


def test_a_server_that_cancels_is_asked_again(careless: Start) -> None:
    refusals = Refusals(status(CANCELLED, "CANCELLED"))
    with Client(careless(refuse=refusals)) as client:
        assert len(client.sample(3, seed=1)) == 3
        assert len(refusals.seen) == 2
        assert refusals.seen[0] == refusals.seen[1]


def test_the_first_call_of_all_may_be_cancelled_too(serve: Callable) -> None:
    class Closing(sampling_service_pb2_grpc.SamplingServiceServicer):
        calls = 0

        def GetModel(self, request: v1.GetModelRequest, context: grpc.ServicerContext) -> v1.GetModelResponse:  # noqa: N802
            self.calls += 1
            if self.calls == 1:
                context.abort(CANCELLED, "CANCELLED")
            return v1.GetModelResponse(card="# A card")

    closing = Closing()
    address = serve(lambda server: sampling_service_pb2_grpc.add_SamplingServiceServicer_to_server(closing, server))
    with Client(address) as client:
        assert client.card() == "# A card"
    assert closing.calls == 2


def test_a_server_that_goes_on_cancelling_is_said_to_have_gone(careless: Start) -> None:
    refusals = Refusals(*[status(CANCELLED, "CANCELLED")] * 3)
    words = r"went away; ask again when it is back \(CANCELLED\)"
    with Client(careless(refuse=refusals), tries=2) as client, pytest.raises(ServerUnreachableError, match=words):
        client.sample(1)
    assert len(refusals.seen) == 2


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_that_its_own_client_cancels_is_not_made_again(careless: Start, streamed: bool) -> None:
    begun, calls = threading.Event(), []

    def hold(request: object, context: grpc.ServicerContext) -> None:
        calls.append(request)
        ended = threading.Event()
        if context.add_callback(ended.set):
            begun.set()
            ended.wait(LIMIT)

    client = Client(careless(refuse=hold))
    client.model()
    cancelled = pytest.raises(InfosinkError, match=r"^this client was closed, which cancelled the call$")
    with closed_after(begun, client), cancelled:
        list(client.stream(1)) if streamed else client.sample(1)
    assert len(calls) == 1


def test_a_client_that_is_closed_waits_for_no_further_try(careless: Start) -> None:
    refused = threading.Event()
    refusals = Refusals(status(BUSY, "full", soon(30)))

    def refuse(request: Message, context: grpc.ServicerContext) -> None:
        refused.set()
        refusals(request, context)

    client = Client(careless(refuse=refuse))
    client.model()
    with closed_after(refused, client), pytest.raises(InfosinkError):
        client.sample(1)
    assert len(refusals.seen) == 1


def test_a_draw_outlives_its_server() -> None:
    command = [Path(sysconfig.get_path("scripts")) / "infosink-serve", "--model", MODEL, "--threads", "1", "--port"]
    with ExitStack() as stack:

        def start(port: str) -> tuple[subprocess.Popen[str], str]:
            process = subprocess.Popen([*command, port], stdout=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            watchdog = threading.Timer(60, process.kill)
            watchdog.start()
            ready = process.stdout.readline()
            watchdog.cancel()
            return process, ready.split(" on ")[1].split(",")[0]

        process, address = start("0")
        client = stack.enter_context(Client(address, tries=6))
        whole = client.sample(1500, seed=3)
        parts = client.stream(1500, seed=3)
        batches = [next(parts)]
        process.kill()
        process.wait()
        start(address.rsplit(":", 1)[1])
        batches.extend(parts)
    assert len(batches) > 2
    assert np.array_equal(np.concatenate([batch.samples for batch in batches]), whole.samples)


def test_a_server_with_another_checkpoint_does_not_finish_a_draw(careless: Start) -> None:
    refusals = Refusals(None, status(GONE, "gone"))

    def other_checkpoint(batch: object) -> None:
        if len(refusals.seen) > 1:
            batch.checkpoint_sha256 = "1" * 64

    with Client(careless(refuse=refusals, spoil=other_checkpoint)) as client:
        parts = client.stream(600, seed=1)
        next(parts)
        with pytest.raises(MalformedReplyError, match="changed from checkpoint"):
            next(parts)


def test_a_server_that_is_shutting_down_is_said_to_be(careless: Start) -> None:
    draining = status(GONE, "no more", ErrorInfo(reason="DRAINING", domain="infosink"), soon())
    words = r"shutting down; ask again when it is back \(no more\)"
    with (
        Client(careless(refuse=Refusals(draining)), tries=1) as client,
        pytest.raises(ServerUnreachableError, match=words),
    ):
        client.sample(1)


def test_a_server_that_is_too_slow_says_so_itself(careless: Start) -> None:
    late = status(grpc.StatusCode.DEADLINE_EXCEEDED, "needs 70 s", ErrorInfo(reason="DEADLINE_TOO_SHORT"))
    words = r"cannot answer within 60 s \(needs 70 s\).*--timeout"
    with Client(careless(refuse=Refusals(late))) as client, pytest.raises(ServerUnreachableError, match=words):
        client.sample(1)


@pytest.mark.parametrize("tries", [0, -1, 101])
def test_the_number_of_tries_is_bounded(tries: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        Client("127.0.0.1:1", tries=tries)


def test_the_command_shows_every_field_at_fault(infosink: Callable, careless: Start) -> None:
    wrong = ["sample", "-o", "x.png", "--category", "9", "--style", "0.5"]
    result = infosink(*wrong)
    assert result.exit_code == 4
    first, second = result.stderr.splitlines()
    assert first.startswith("Error: draw.codes[0].category is 9, but images has the categories 0 to 3")
    assert first.endswith("(and 1 more)")
    assert second.startswith("  draw.codes[0].style has 1 values")
    error = json.loads(infosink(*wrong, "--json").stderr)
    assert error["reason"] == "VALUE_OUT_OF_RANGE"
    assert [violation["field"] for violation in error["violations"]] == [
        "draw.codes[0].category",
        "draw.codes[0].style",
    ]
    busy = careless(refuse=Refusals(status(BUSY, "full", soon(30))))
    result = infosink("sample", "-o", "x.png", "--server", busy, "--tries", "1", "--json")
    assert json.loads(result.stderr)["retry_after"] == 30
