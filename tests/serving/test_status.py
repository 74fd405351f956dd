"""Refusals as clients of any language see them: google.rpc.Status and its details, in bounded metadata."""

import base64
import re
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    RequestInfo,
    ResourceInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from infosink.serving.calls.status import status_of
from infosink.serving.errors import (
    BusyError,
    DeadlineError,
    DrainingError,
    InvalidRequestError,
    RequestError,
    UnavailableError,
    UnknownModelError,
    Violation,
)
from infosink.serving.sampling.faults import MOST_VIOLATIONS, Faults

REPOSITORY = Path(__file__).parents[2]


def detail(status: Status, kind: type[Message]) -> Message | None:
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
        (UnknownModelError, grpc.StatusCode.NOT_FOUND),
        (UnavailableError, grpc.StatusCode.FAILED_PRECONDITION),
        (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
        (DrainingError, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_every_refusal_has_its_code_reason_and_domain(kind: type[RequestError], code: grpc.StatusCode) -> None:
    class Narrower(kind):
        """A subclass is answered as its base is."""

    for error in (kind("what is wrong"), Narrower("what is wrong")):
        status = status_of(error, "5f")
        assert (status.code, status.message) == (code.value[0], "what is wrong")
        information = detail(status, ErrorInfo)
        assert information.domain == "infosink"
        assert information.reason == error.reason == information.reason.upper()
        assert detail(status, RequestInfo) is None


@pytest.mark.parametrize("kind", [BusyError, DrainingError])
def test_what_passes_says_when_to_come_back(kind: type[RequestError]) -> None:
    assert detail(status_of(kind("full"), ""), RetryInfo).retry_delay.ToMilliseconds() > 0
    assert detail(status_of(kind("full", retry_after=0.25), ""), RetryInfo).retry_delay.ToMilliseconds() == 250
    assert detail(status_of(InvalidRequestError("bad"), ""), RetryInfo) is None


def test_fields_at_fault_are_named() -> None:
    facts = {"value": 9, "limit": 4}
    error = InvalidRequestError("draw.count is 9", reason="LIMIT_EXCEEDED", field="draw.count", metadata=facts)
    status = status_of(error, "")
    (violation,) = detail(status, BadRequest).field_violations
    assert (violation.field, violation.description) == ("draw.count", "draw.count is 9")
    assert violation.reason == detail(status, ErrorInfo).reason == "LIMIT_EXCEEDED"
    assert dict(detail(status, ErrorInfo).metadata) == {"value": "9", "limit": "4"}
    status = status_of(UnavailableError("no such label", reason="LABEL_UNREACHABLE", field="draw.codes[0].label"), "")
    (violation,) = detail(status, PreconditionFailure).violations
    assert (violation.type, violation.subject) == ("LABEL_UNREACHABLE", "draw.codes[0].label")
    assert detail(status, BadRequest) is None


def test_an_unknown_model_is_a_resource() -> None:
    resource = detail(status_of(UnknownModelError("no model", metadata={"model": "cifar"}), ""), ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("infosink.v1.Model", "cifar")


@pytest.mark.parametrize("error", [OSError("/srv/secret"), RuntimeError("node a_node"), MemoryError(), KeyError("x")])
def test_an_unexpected_error_tells_its_request_id_alone(error: Exception) -> None:
    status = status_of(error, "5f")
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert status.message == "internal error; request id 5f"
    assert detail(status, RequestInfo).request_id == "5f"
    assert [packed.TypeName() for packed in status.details] == ["google.rpc.ErrorInfo", "google.rpc.RequestInfo"]


texts = st.text(st.characters(codec="utf-8"), max_size=3000) | st.sampled_from(
    ["€" * 3000, "x" * 10**5, "\U0001f600%" * 999]
)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([InvalidRequestError, UnavailableError, UnknownModelError, BusyError]),
    message=texts,
    violations=st.lists(st.tuples(texts, texts), max_size=40),
    metadata=st.dictionaries(st.sampled_from(["value", "limit", "model"]), texts),
)
def test_the_metadata_is_bounded_whatever_the_request_held(
    kind: type[RequestError], message: str, violations: list[tuple[str, str]], metadata: dict[str, str]
) -> None:
    fields = [Violation(field, description, "REASON") for field, description in violations]
    status = status_of(kind(message, violations=fields, metadata=metadata), "5f")
    carried = (
        quote(status.message, safe="".join(map(chr, range(0x20, 0x7F)))),
        base64.b64encode(status.SerializeToString()),
    )
    assert len(carried[0]) + len(carried[1]) + len("grpc-messagegrpc-status-details-bin") + 2 * 32 < 7 * 1024
    shown = message.removesuffix(message[len(status.message) - 1 :])
    assert status.message == message or status.message == f"{shown}…"
    named = [*getattr(detail(status, BadRequest), "field_violations", [])]
    assert len(named) <= len(fields)
    if kind is InvalidRequestError and fields:
        assert named


def test_faults_are_gathered_and_the_first_speaks() -> None:
    faults = Faults()
    with faults:
        raise UnavailableError("no such label", reason="LABEL_UNREACHABLE", field="label")
    with faults:
        raise InvalidRequestError("the count is 9", reason="LIMIT_EXCEEDED", field="count", metadata={"value": 9})
    with faults:
        passed = True
    with pytest.raises(InvalidRequestError, match=r"^the count is 9 \(and 1 more\)$") as refusal:
        faults.refuse()
    assert passed
    # What is wrong whatever the server's state decides the code.
    assert [violation.field for violation in refusal.value.violations] == ["count", "label"]
    assert (refusal.value.reason, refusal.value.metadata) == ("LIMIT_EXCEEDED", {"value": 9})


def test_one_fault_is_left_as_it_is_and_other_errors_pass() -> None:
    faults = Faults()
    faults.refuse()
    with faults:
        raise InvalidRequestError("the count is 9", field="count")
    with pytest.raises(InvalidRequestError, match=r"^the count is 9$"):
        faults.refuse()
    with pytest.raises(ZeroDivisionError), faults:
        raise ZeroDivisionError


def test_checking_ends_where_enough_is_wrong() -> None:
    checked = []

    def check_all() -> None:
        faults = Faults()
        for position in range(1000):
            checked.append(position)
            with faults:
                raise InvalidRequestError(f"field {position}", field=f"f[{position}]")

    with pytest.raises(InvalidRequestError, match=r"^field 0 \(and at least 15 more\)$") as refusal:
        check_all()
    assert len(checked) == len(refusal.value.violations) == MOST_VIOLATIONS


def test_every_reason_is_documented() -> None:
    given = re.compile(r'(?:reason=|default_reason = |_REASON = |_UnusableError\(\s*)"([A-Z_]+)"')
    source = "".join(path.read_text() for path in sorted((REPOSITORY / "serving").rglob("*.py")))
    rows = [line.split("|")[2] for line in (REPOSITORY / "docs" / "errors.md").read_text().splitlines() if "|" in line]
    documented = set(re.findall(r"`([A-Z_]+)`", "".join(rows)))
    assert len(documented) > 20
    assert set(given.findall(source)) == documented
