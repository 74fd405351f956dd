"""TLS, clients' certificates and tokens: who is served, who is not, and what changes while serving."""

import logging
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_status import rpc_status
from infosink.serving.command import main
from infosink.serving.errors import StartupError
from infosink.serving.models.served_model import ServedModel
from infosink.serving.security.access import access
from infosink.serving.security.credentials import server_credentials
from infosink.serving.security.tokens import TokenInterceptor, Tokens
from infosink.serving.settings import Settings
from infosink.v1 import sampling_service_pb2 as v1

LIMIT = 20
"""Seconds after which a call has failed."""
TOKEN, OTHER, NEW = (f"{name}-0123456789abcdef" for name in ("first", "second", "third"))
_SERVICE, _HEALTH = "/infosink.v1.SamplingService", "/grpc.health.v1.Health"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
METHODS: dict[str, tuple[str, Message]] = {
    f"{_SERVICE}/GetModel": ("unary_unary", v1.GetModelRequest()),
    f"{_SERVICE}/Sample": ("unary_unary", v1.SampleRequest(draw=v1.Draw(count=1))),
    f"{_SERVICE}/StreamSamples": ("unary_stream", v1.StreamSamplesRequest(draw=v1.Draw(count=1))),
    f"{_HEALTH}/Check": ("unary_unary", HealthCheckRequest()),
    f"{_HEALTH}/Watch": ("unary_stream", HealthCheckRequest()),
    _REFLECTION: ("stream_stream", ServerReflectionRequest(list_services="*")),
    "/no.such.Service/Method": ("unary_unary", HealthCheckRequest()),
}
GET_MODEL = f"{_SERVICE}/GetModel"


class Files:
    """A certificate, its key and the CA of the clients, in a folder where a server reads them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.client_ca, self.tokens = folder / "clients.crt", folder / "tokens"

    def write(self, issued: trustme.LeafCert) -> None:
        self.certificate.write_bytes(chain(issued))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.key.chmod(0o600)

    def write_tokens(self, text: str) -> None:
        """Replaces the file, as an operator should: nobody reads half of it."""
        new = self.tokens.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        new.replace(self.tokens)


def chain(issued: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in issued.cert_chain_pems)


def issue(ca: trustme.CA, days: float | None = None) -> trustme.LeafCert:
    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    return ca.issue_cert("127.0.0.1", not_after=ends)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, ca: trustme.CA) -> Files:
    files = Files(tmp_path)
    files.write(issue(ca))
    files.client_ca.write_bytes(ca.cert_pem.bytes())
    files.write_tokens(f"# of the web site\n{TOKEN}\n\n{OTHER}  # of the batch job\n")
    return files


@pytest.fixture(scope="module")
def start(start_server: Callable, load_file: Callable[..., ServedModel], schema_1: Path) -> Callable[..., str]:
    """Starts servers of one model with credentials and tokens, and returns their addresses."""
    model = load_file(schema_1 / "gen.onnx")

    def start(credentials: grpc.ServerCredentials | None = None, tokens: Tokens | None = None, **settings: int) -> str:
        interceptors = [] if tokens is None else [TokenInterceptor(tokens)]
        return start_server(model, credentials=credentials, interceptors=interceptors, **settings).address

    return start


def connect(address: str, trusted: trustme.CA | None, own: trustme.LeafCert | None = None) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]
    if trusted is None:
        return grpc.insecure_channel(address, options)
    key, certificate = (None, None) if own is None else (own.private_key_pem.bytes(), chain(own))
    credentials = grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), key, certificate)
    return grpc.secure_channel(address, credentials, options)


def answer(
    address: str,
    trusted: trustme.CA | None = None,
    own: trustme.LeafCert | None = None,
    method: str = GET_MODEL,
    **metadata: str,
) -> grpc.StatusCode:
    """What a call on a new connection ends with."""
    with connect(address, trusted, own) as channel:
        return call(channel, method, list(metadata.items()))[0]


def call(channel: grpc.Channel, method: str, metadata: list[tuple[str, str]]) -> tuple[grpc.StatusCode, str]:
    kind, message = METHODS[method]
    request = message.SerializeToString()
    try:
        reply = getattr(channel, kind)(method)(
            iter([request]) if kind == "stream_stream" else request, metadata=metadata, timeout=LIMIT
        )
        if kind != "unary_unary":
            # A watch goes on for good.
            next(reply)
            reply.cancel()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return OK, ""


OK, UNAVAILABLE, UNAUTHENTICATED = (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# TLS


def test_tls_serves_those_who_know_its_ca(
    files: Files, start: Callable[..., str], ca: trustme.CA, other_ca: trustme.CA
) -> None:
    address = start(server_credentials(files.certificate, files.key, None))
    assert answer(address, ca) is OK
    assert answer(address, other_ca) is UNAVAILABLE
    assert answer(address) is UNAVAILABLE


def test_an_expired_certificate_is_served_with_a_warning_and_refused_by_clients(
    files: Files, start: Callable[..., str], ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    files.write(issue(ca, days=-1))
    address = start(server_credentials(files.certificate, files.key, None))
    assert messages(caplog) == [f"clients will refuse the certificate {files.certificate}: certificate has expired"]
    assert answer(address, ca) is UNAVAILABLE


@pytest.mark.parametrize(("days", "warned"), [(29.5, True), (30.5, False)])
def test_a_certificate_that_expires_within_30_days_is_warned_of(
    files: Files, ca: trustme.CA, caplog: pytest.LogCaptureFixture, days: float, warned: bool
) -> None:
    files.write(issue(ca, days))
    server_credentials(files.certificate, files.key, files.client_ca)
    assert [str(files.certificate) in message and "expires in" in message for message in messages(caplog)] == (
        [True] * warned
    )


def test_clients_need_a_certificate_of_the_clients_ca(
    files: Files, start: Callable[..., str], ca: trustme.CA, other_ca: trustme.CA
) -> None:
    files.client_ca.write_bytes(other_ca.cert_pem.bytes())
    address = start(server_credentials(files.certificate, files.key, files.client_ca))
    assert answer(address, ca) is UNAVAILABLE
    assert answer(address, ca, issue(ca)) is UNAVAILABLE
    assert answer(address, ca, issue(other_ca, days=-1)) is UNAVAILABLE
    assert answer(address, ca, issue(other_ca)) is OK


def test_a_new_certificate_serves_new_connections_and_leaves_the_old_ones(
    files: Files, start: Callable[..., str], ca: trustme.CA, other_ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = start(server_credentials(files.certificate, files.key, None))
    with connect(address, ca) as old:
        assert call(old, GET_MODEL, [])[0] is OK
        files.write(issue(other_ca))
        assert answer(address, ca) is UNAVAILABLE
        assert answer(address, other_ca) is OK
        assert answer(address, other_ca) is OK
        assert call(old, GET_MODEL, [])[0] is OK
    assert messages(caplog, logging.INFO) == [
        f"the certificate {files.certificate} was read anew and serves from now on"
    ]


def test_a_new_clients_ca_counts_for_new_connections(
    files: Files, start: Callable[..., str], ca: trustme.CA, other_ca: trustme.CA
) -> None:
    address = start(server_credentials(files.certificate, files.key, files.client_ca))
    assert answer(address, ca, issue(ca)) is OK
    files.client_ca.write_bytes(other_ca.cert_pem.bytes())
    assert answer(address, ca, issue(ca)) is UNAVAILABLE
    assert answer(address, ca, issue(other_ca)) is OK


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_half_another(path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes()[:300])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        *((name, spoil) for name in ("certificate", "key", "client_ca") for spoil in (halved, emptied, Path.unlink)),
        ("certificate", with_half_another),
        ("client_ca", with_half_another),
    ],
)
def test_half_written_files_leave_the_old_certificate_serving(
    files: Files,
    start: Callable[..., str],
    ca: trustme.CA,
    other_ca: trustme.CA,
    caplog: pytest.LogCaptureFixture,
    name: str,
    spoil: Callable[[Path], object],
) -> None:
    address = start(server_credentials(files.certificate, files.key, files.client_ca))
    own = issue(ca)
    files.write(issue(other_ca))
    path: Path = getattr(files, name)
    whole = path.read_bytes()
    spoil(path)
    assert [answer(address, ca, own) for _ in range(3)] == [OK] * 3
    (complaint,) = messages(caplog)
    assert str(path) in complaint
    assert complaint.endswith("the certificate read before still serves")
    path.write_bytes(whole)
    path.chmod(0o600)
    assert answer(address, other_ca, own) is OK
    assert messages(caplog) == [complaint]


def test_a_certificate_whose_key_is_still_the_old_one_waits_for_it(
    files: Files, start: Callable[..., str], ca: trustme.CA, other_ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    address = start(server_credentials(files.certificate, files.key, None))
    new = issue(other_ca)
    files.certificate.write_bytes(chain(new))
    assert [answer(address, ca) for _ in range(3)] == [OK] * 3
    assert len(messages(caplog)) == 1
    assert f"the key {files.key} is not that of the certificate {files.certificate}" in messages(caplog)[0]
    files.key.write_bytes(new.private_key_pem.bytes())
    assert answer(address, other_ca) is OK


def encrypted(path: Path) -> None:
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


def foreign(path: Path) -> None:
    path.write_bytes(issue(trustme.CA()).private_key_pem.bytes())


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("certificate", Path.unlink, "No such file or directory: give a file that can be read to --tls-certificate"),
        ("key", Path.unlink, "No such file or directory: give a file that can be read to --tls-key"),
        ("client_ca", Path.unlink, "No such file or directory: give a file that can be read to --client-ca"),
        ("key", folder, "is no regular file: give one to --tls-key"),
        ("certificate", halved, "holds no whole certificate in PEM: give one that does to --tls-certificate"),
        ("client_ca", halved, "holds no whole certificate in PEM: give one that does to --client-ca"),
        ("key", halved, "holds no whole private key in PEM: give one that does to --tls-key"),
        ("key", encrypted, "has a passphrase: give one without to --tls-key"),
        ("key", foreign, "is not that of the certificate"),
        ("certificate", lambda path: path.write_bytes(b" " * (2**20 + 1)), "exceeds 1 MiB"),
    ],
)
def test_wrong_files_are_refused_at_start_up(
    files: Files, name: str, spoil: Callable[[Path], object], words: str
) -> None:
    path: Path = getattr(files, name)
    spoil(path)
    with pytest.raises(StartupError) as caught:
        server_credentials(files.certificate, files.key, files.client_ca)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_certificate_may_have_words_around_it(files: Files, start: Callable[..., str], ca: trustme.CA) -> None:
    files.certificate.write_bytes("Subject: Zoë\n".encode() + files.certificate.read_bytes())
    assert answer(start(server_credentials(files.certificate, files.key, None)), ca) is OK


def test_a_key_that_all_can_read_is_warned_of(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.key.chmod(0o644)
    server_credentials(files.certificate, files.key, None)
    assert messages(caplog) == [f"{files.key} can be read by every user of this machine: chmod o-r it"]


# Tokens


@pytest.mark.parametrize("method", METHODS)
def test_every_method_asks_for_a_token(files: Files, start: Callable[..., str], method: str) -> None:
    address = start(tokens=Tokens(files.tokens))
    expected = grpc.StatusCode.UNIMPLEMENTED if "no.such" in method else OK
    for token in (TOKEN, OTHER):
        assert answer(address, method=method, authorization=f"Bearer {token}") is expected
    assert answer(address, method=method, authorization=f"bearer  {TOKEN} ") is expected
    for wrong in (f"Bearer {NEW}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer"):
        assert answer(address, method=method, authorization=wrong) is UNAUTHENTICATED
    assert answer(address, method=method) is UNAUTHENTICATED
    assert answer(address, method=method, token=TOKEN) is UNAUTHENTICATED


def test_refusals_say_what_to_do_and_never_what_was_sent(files: Files, start: Callable[..., str]) -> None:
    address = start(tokens=Tokens(files.tokens))
    with connect(address, None) as channel:
        _, missing = call(channel, GET_MODEL, [])
        _, wrong = call(channel, GET_MODEL, [("authorization", f"Bearer {NEW}")])
        twice, _ = call(
            channel, GET_MODEL, [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {OTHER}")]
        )
    assert "authorization: Bearer TOKEN" in missing
    assert "--token-file" in missing
    assert "ask its operator" in wrong
    assert NEW not in wrong
    assert twice is UNAUTHENTICATED


def test_a_refusal_bears_its_reason(files: Files, start: Callable[..., str]) -> None:
    address = start(tokens=Tokens(files.tokens))
    with connect(address, None) as channel:
        for metadata, reason in (([], "TOKEN_MISSING"), ([("authorization", f"Bearer {NEW}")], "TOKEN_WRONG")):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(GET_MODEL)(b"", metadata=metadata, timeout=LIMIT)
            information = ErrorInfo()
            assert rpc_status.from_call(caught.value).details[0].Unpack(information)
            assert (information.domain, information.reason) == ("infosink", reason)


def test_a_request_without_a_token_is_never_read(files: Files, start: Callable[..., str]) -> None:
    # 5 MiB are more than a server takes: it would say so, had it read them.
    address = start(tokens=Tokens(files.tokens))
    with connect(address, None) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(GET_MODEL)(bytes(5 * 2**20), timeout=LIMIT)
    assert caught.value.code() is UNAUTHENTICATED


def test_rotated_tokens_count_from_the_next_call_on(
    files: Files, start: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = start(tokens=Tokens(files.tokens))
    with connect(address, None) as channel:

        def code(token: str) -> grpc.StatusCode:
            return call(channel, GET_MODEL, [("authorization", f"Bearer {token}")])[0]

        assert [code(TOKEN), code(NEW)] == [OK, UNAUTHENTICATED]
        files.write_tokens(f"{TOKEN}\n{NEW}\n")
        assert [code(TOKEN), code(NEW), code(OTHER)] == [OK, OK, UNAUTHENTICATED]
        files.write_tokens(NEW)
        assert [code(TOKEN), code(NEW)] == [UNAUTHENTICATED, OK]
    assert messages(caplog, logging.INFO) == [
        f"{files.tokens} was read anew: 2 count from now on",
        f"{files.tokens} was read anew: 1 counts from now on",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file or directory"),
        ("", "holds no token"),
        ("# nobody yet\n", "holds no token"),
        (f"{NEW}\nshort\n", "line 2 of {path} has 5 characters, not 16 to 1024"),
        (f"{NEW}\n{'x' * 1025}\n", "has 1025 characters"),
        (f"{NEW} {NEW}\n", "line 1 of {path} is no token"),
        (f"{NEW}é\n", "line 1 of {path} is no token"),
        (NEW * 2**16, "exceeds 1 MiB"),
    ],
)
def test_a_broken_token_file_is_refused_at_start_up_and_leaves_the_old_tokens_later(
    files: Files, caplog: pytest.LogCaptureFixture, text: str | None, words: str
) -> None:
    tokens = Tokens(files.tokens)
    files.tokens.unlink() if text is None else files.write_tokens(text)
    with pytest.raises(StartupError) as caught:
        Tokens(files.tokens)
    assert words.format(path=files.tokens) in str(caught.value)
    assert str(files.tokens) in str(caught.value)
    assert [tokens.accepts(token) for token in (TOKEN, OTHER, NEW)] == [True, True, False]
    assert messages(caplog) == [f"{caught.value}; the tokens read before still count"]
    files.write_tokens(NEW)
    assert [tokens.accepts(token) for token in (TOKEN, OTHER, NEW)] == [False, False, True]


def test_a_token_file_that_all_can_read_is_warned_of(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.tokens.chmod(0o640)
    Tokens(files.tokens)
    assert messages(caplog) == []
    files.tokens.chmod(0o644)
    Tokens(files.tokens)
    assert messages(caplog) == [f"{files.tokens} can be read by every user of this machine: chmod o-r it"]


# The command


def test_health_asks_for_no_token_on_its_own_port(
    files: Files, start_server: Callable, load_file: Callable[..., ServedModel], schema_1: Path, ca: trustme.CA
) -> None:
    running = start_server(
        load_file(schema_1 / "gen.onnx"),
        credentials=server_credentials(files.certificate, files.key, files.client_ca),
        interceptors=[TokenInterceptor(Tokens(files.tokens))],
        health_port=0,
    )
    assert answer(running.address, ca, issue(ca), f"{_HEALTH}/Check") is UNAUTHENTICATED
    assert answer(running.server.health_address, method=f"{_HEALTH}/Check") is OK
    assert answer(running.server.health_address, method=f"{_HEALTH}/Watch") is OK
    for method in (GET_MODEL, _REFLECTION):
        assert answer(running.server.health_address, method=method) is grpc.StatusCode.UNIMPLEMENTED


def test_what_strangers_need_not_have_is_said(files: Files) -> None:
    pair = {"tls_certificate": files.certificate, "tls_key": files.key}

    def lack(host: str, **settings: Path) -> str | None:
        return access(Settings(host=host, **settings)).lack

    assert lack("0.0.0.0") == "authentication or encryption"
    assert lack("::", **pair) == "authentication"
    assert lack("example.org", **pair, token_file=files.tokens) is None
    assert lack("192.0.2.1", **pair, client_ca=files.client_ca) is None
    for host in ("127.0.0.1", "::1", "localhost"):
        assert lack(host) is None
        assert lack(host, token_file=files.tokens) is None


def test_tokens_in_the_clear_beyond_this_machine_are_refused_at_start_up(files: Files) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(StartupError) as caught:
            access(Settings(host=host, token_file=files.tokens))
        assert str(caught.value) == (
            "tokens would cross the network in the clear: give --tls-certificate and --tls-key, "
            f"or listen on 127.0.0.1 instead of {host}"
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-certificate", "x"], "--tls-certificate and --tls-key go together"),
        (["--tls-key", "x"], "--tls-certificate and --tls-key go together"),
        (["--client-ca", "x"], "--client-ca goes with --tls-certificate and --tls-key"),
    ],
)
def test_options_that_go_together_are_given_together(options: list[str], words: str) -> None:
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_token_or_key_is_ever_logged(
    files: Files, serve: Callable, schema_1: Path, ca: trustme.CA, log_format: str
) -> None:
    process = serve(
        *("--model", schema_1 / "gen.onnx", "--port", "0", "--threads", "1"),
        *("--tls-certificate", files.certificate, "--tls-key", files.key, "--token-file", files.tokens),
        *("--log-level", "debug", "--log-format", log_format),
    )
    address = process.ready()
    assert answer(address, ca, authorization=f"Bearer {TOKEN}") is OK
    assert answer(address, ca, authorization=f"Bearer {NEW}") is UNAUTHENTICATED
    assert answer(address, ca, authorization=NEW) is UNAUTHENTICATED
    files.write_tokens(f"{NEW}\nshort\n")
    assert answer(address, ca, authorization=f"Bearer {TOKEN}") is OK
    files.write_tokens(NEW)
    assert answer(address, ca, authorization=f"Bearer {NEW}") is OK
    key = files.key.read_text()
    files.key.write_text(key[: len(key) // 2])
    assert answer(address, ca, authorization=f"Bearer {NEW}") is OK
    process.signal(signal.SIGTERM)
    code, out, err = process.end()
    assert code == 0
    assert str(files.tokens) in err
    assert str(files.key) in err
    secrets = [TOKEN, OTHER, NEW, *(line for line in key.splitlines() if "-----" not in line)]
    assert not [secret for secret in secrets if secret in process.ready_line + out + err]
