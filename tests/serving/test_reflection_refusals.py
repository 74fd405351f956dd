"""Reflection under both its names: what is no message is the client's mistake, and each call is counted by its name."""

import logging
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

METHODS = [f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1alpha", "v1")]
LIMIT = 60
QUESTION = ServerReflectionRequest(list_services="").SerializeToString()
NO_MESSAGE = b"\xff\xff\xff"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("questions", [[NO_MESSAGE], [QUESTION, NO_MESSAGE, QUESTION]])
def test_what_is_no_message_is_refused_as_elsewhere(
    running, caplog: pytest.LogCaptureFixture, method: str, questions: list[bytes]
) -> None:
    call = running.channel.stream_stream(f"/{method}")(iter(questions), timeout=LIMIT)
    answers = []
    with pytest.raises(grpc.RpcError) as caught:
        answers.extend(call)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    (detail,) = rpc_status.from_call(caught.value).details
    information = ErrorInfo()
    assert detail.Unpack(information)
    assert information.reason == "MESSAGE_MALFORMED"
    assert len(answers) <= questions.index(NO_MESSAGE)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_reflection_is_counted_under_the_name_it_was_called_by(serve: Callable, schema_1: Path) -> None:
    process = serve("--model", schema_1 / "gen.onnx", "--port", "0", "--metrics-port", "0")
    with grpc.insecure_channel(process.ready()) as channel:
        for method in METHODS:
            assert len(list(channel.stream_stream(f"/{method}")(iter([QUESTION]), timeout=LIMIT))) == 1
    with urlopen(f"http://{process.ready_line.rpartition(' on ')[2].strip()}/metrics", timeout=LIMIT) as reply:
        text = reply.read().decode()
    counted = {
        sample.labels["method"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "infosink_request_seconds_count"
    }
    assert counted == dict.fromkeys(METHODS, 1)
