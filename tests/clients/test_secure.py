"""`infosink` and servers with TLS, clients' certificates and tokens: what works, and one line where it does not."""

import json
import os
import re
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from click.testing import Result
from infosink.clients import Client, RequestRefusedError

SCHEMA_1 = Path(__file__).parents[1] / "compatibility" / "schema-1"
SCRIPTS = Path(sysconfig.get_path("scripts"))
TOKEN, OTHER = "first-0123456789abcdef", "second-0123456789abcdef"

Run = Callable[..., Result]
RunProcess = Callable[..., "subprocess.CompletedProcess[str]"]


class Keys:
    """Files in a folder: CAs, certificates of theirs with their keys, and tokens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.other_ca = trustme.CA(), trustme.CA()
        for name, ca in (("ca", self.ca), ("other-ca", self.other_ca)):
            self.write(f"{name}.crt", ca.cert_pem.bytes())
        self.issue("server", self.ca)
        self.issue("own", self.ca)
        self.issue("foreign", self.other_ca)
        self.issue("old", self.ca, days=-1)
        self.write("tokens", f"{TOKEN}\n".encode())
        self.write("token", f"# mine\n{TOKEN}\n".encode())
        self.write("wrong-token", OTHER.encode())
        self.write("two-tokens", f"{TOKEN}\n{OTHER}\n".encode())

    def issue(self, name: str, ca: trustme.CA, days: float | None = None, host: str = "127.0.0.1") -> None:
        issued = ca.issue_cert(host, not_after=None if days is None else datetime.now(UTC) + timedelta(days=days))
        self.write(f"{name}.crt", b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.write(f"{name}.key", issued.private_key_pem.bytes())

    def write(self, name: str, contents: bytes) -> None:
        (self.folder / name).write_bytes(contents)
        (self.folder / name).chmod(0o600)

    def pair(self, name: str) -> list[str]:
        return ["--certificate", f"{self.folder}/{name}.crt", "--key", f"{self.folder}/{name}.key"]


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The address of a server with the options given."""
    command = [SCRIPTS / "infosink-serve", "--model", SCHEMA_1 / "gen.onnx", "--port", "0", "--threads", "1", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        # A server that never gets ready ends the wait by its end.
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            address = re.search(r" on (\S+:\d+)", process.stdout.readline())
            assert address
            yield address[1]
        finally:
            watchdog.cancel()
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def secure(keys: Keys) -> Iterator[str]:
    """A server with TLS that asks for a token."""
    pair = ["--tls-certificate", f"{keys.folder}/server.crt", "--tls-key", f"{keys.folder}/server.key"]
    with serving(*pair, "--token-file", f"{keys.folder}/tokens") as address:
        yield address


@pytest.fixture(scope="module")
def mutual(keys: Keys) -> Iterator[str]:
    """A server with TLS that asks for a certificate."""
    pair = ["--tls-certificate", f"{keys.folder}/server.crt", "--tls-key", f"{keys.folder}/server.key"]
    with serving(*pair, "--client-ca", f"{keys.folder}/ca.crt") as address:
        yield address


@pytest.fixture
def models(infosink: Run, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `infosink models` against a server, in the folder of the keys."""
    monkeypatch.chdir(keys.folder)
    return lambda server, *options: infosink("models", "--server", server, *options)


def test_a_token_over_tls_is_served(models: Run, secure: str) -> None:
    result = models(secure, "--ca", "ca.crt", "--token-file", "token")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_environment_says_it_as_well(
    infosink: Run, folder: Path, keys: Keys, secure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFOSINK_SERVER", secure)
    monkeypatch.setenv("INFOSINK_CA", f"{keys.folder}/ca.crt")
    monkeypatch.setenv("INFOSINK_TOKEN_FILE", f"{keys.folder}/token")
    result = infosink("sample", "--label", "7", "-o", "x.png")
    assert (result.exit_code, result.stderr) == (0, "")
    with Client() as client:
        assert client.model().model.name


def test_every_call_bears_the_token(secure: str, keys: Keys) -> None:
    with Client(secure, ca=keys.folder / "ca.crt", token=TOKEN) as client:
        samples = client.sample(2, seed=1)
        assert len(client.sample(client.model().limits.unary_uint8_samples + 1, seed=1))
        assert len(client.infer(samples.samples)) == 2
        assert [served.model.name for served in client.models()] == [client.model().model.name]
        assert client.card() == ""


def test_a_certificate_of_the_clients_ca_is_served(models: Run, mutual: str, keys: Keys) -> None:
    result = models(mutual, "--ca", "ca.crt", *keys.pair("own"))
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "this server asks for a token"),
        (["--token-file", "wrong-token"], "the token is none of this server's"),
    ],
)
def test_a_missing_or_wrong_token_is_refused_with_exit_code_4(
    models: Run, secure: str, options: list[str], words: str
) -> None:
    result = models(secure, "--ca", "ca.crt", *options)
    assert result.exit_code == 4
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert OTHER not in result.stderr
    refused = json.loads(models(secure, "--ca", "ca.crt", *options, "--json").stderr)
    assert (refused["error"], refused["code"]) == ("refused", "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("which", "options", "words"),
    [
        ("secure", [], "closed the connection; where it speaks TLS, add --tls, or --ca with its CA"),
        ("secure", ["--ca", "other-ca.crt"], "is not of other-ca.crt; give the CA that it is of with --ca"),
        ("secure", ["--tls"], "is not of a public CA; give the CA that it is of with --ca"),
        ("server", ["--ca", "ca.crt"], "does not speak TLS; leave out --tls"),
        ("mutual", ["--ca", "ca.crt"], "give yours with --certificate and --key"),
        ("mutual", ["--ca", "ca.crt", "foreign"], "see whether {folder}/foreign.crt is of a CA that it trusts"),
        ("mutual", ["--ca", "ca.crt", "old"], "see whether {folder}/old.crt is of a CA that it trusts"),
    ],
)
def test_ends_that_do_not_understand_each_other_say_so_with_exit_code_3(
    request: pytest.FixtureRequest, models: Run, keys: Keys, which: str, options: list[str], words: str
) -> None:
    address = request.getfixturevalue(which)
    result = models(address, *options[:2], *(option for name in options[2:] for option in keys.pair(name)))
    assert result.exit_code == 3
    assert f"the server at {address}" in result.stderr
    assert words.format(folder=keys.folder) in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_failed_handshake_is_one_line_on_a_terminal(process: RunProcess, secure: str) -> None:
    # Of its own accord, gRPC's core would write another.
    result = process("models", "--server", secure, "--tls")
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("days", "host", "words"),
    [(-1, "127.0.0.1", "has expired; its operator must renew it"), (9, "example.org", "is for another name")],
)
def test_a_certificate_that_a_server_turns_to_is_checked(
    models: Run, keys: Keys, mutual: str, days: float, host: str, words: str
) -> None:
    keys.issue("server", keys.ca, days, host)
    result = models(mutual, "--ca", "ca.crt", *keys.pair("own"))
    assert result.exit_code == 3
    assert words in result.stderr
    keys.issue("server", keys.ca)
    assert models(mutual, "--ca", "ca.crt", *keys.pair("own")).exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--token-file", "token", "--server", "192.0.2.1:50051"], "would cross the network unencrypted; add --tls"),
        (["--token-file", "token", "--server", "example.org:50051"], "would cross the network unencrypted"),
        (["--token-file", "missing"], "cannot read missing: No such file or directory"),
        (["--token-file", "two-tokens"], "two-tokens holds 2 tokens"),
        (["--token-file", "own.key"], "own.key"),
        (["--ca", "token"], "token holds no certificate in PEM; give one that does to --ca"),
        (["--ca", "missing"], "cannot read missing: No such file or directory"),
        (["--certificate", "own.crt"], "own.crt is of no use alone"),
        (["--key", "own.key"], "own.key is of no use alone"),
        (["--certificate", "own.crt", "--key", "foreign.key"], "foreign.key is not that of the certificate own.crt"),
        (["--certificate", "own.crt", "--key", "own.crt"], "own.crt holds no private key in PEM"),
    ],
)
def test_wrong_files_are_wrong_usage(models: Run, nobody: str, options: list[str], words: str) -> None:
    result = models(nobody, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert TOKEN not in result.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/socket"])
def test_a_token_needs_no_encryption_on_this_machine(address: str) -> None:
    Client(address, token=TOKEN).close()


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "127.0.0.1.example.org:1", "localhost.example.org:1"])
def test_a_token_never_leaves_this_machine_unencrypted(address: str) -> None:
    with pytest.raises(ValueError, match="unencrypted"):
        Client(address, token=TOKEN)
    Client(address, token=TOKEN, tls=True).close()


@pytest.mark.parametrize("token", ["", "with space", "line\nbreak", "é" * 16, "x" * 1025])
def test_what_is_no_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ValueError, match="the token is not up to 1024") as caught:
        Client("127.0.0.1:1", token=token)
    assert not token or token not in str(caught.value)


def test_a_client_without_the_token_is_told_in_python_too(secure: str, keys: Keys) -> None:
    with Client(secure, ca=os.fspath(keys.folder / "ca.crt")) as client:
        with pytest.raises(RequestRefusedError) as caught:
            client.models()
        assert caught.value.code == "UNAUTHENTICATED"
        with pytest.raises(RequestRefusedError):
            list(client.stream(600))
