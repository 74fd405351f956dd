"""Options that several commands share."""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ..connection import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT,
    DEFAULT_TRIES,
    ENVIRONMENT_VARIABLE,
    MOST_TRIES,
    checked_address,
    checked_timeout,
    default_address,
)
from ..credentials import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    TLS_VARIABLE,
    TOKEN_FILE_VARIABLE,
    read_token,
)
from ..destination import Destination, Form

if TYPE_CHECKING:
    from ..client import Client

    _ParamType = click.ParamType[Any]
else:
    # Generic in some of click's versions only.
    _ParamType = click.ParamType

_LARGEST_UINT64 = 2**64 - 1
MOST_SAMPLES = 10_000_000
_MOST_IN_A_PICTURE = 10_000

COUNT = click.IntRange(1, MOST_SAMPLES)
CATEGORY = click.IntRange(0, 2**32 - 1)


class Checked(_ParamType):
    """What a function makes of the text; its ValueError is a usage error."""

    def __init__(self, name: str, check: Callable[[Any], Any]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The function's result.

        Raises:
            click.BadParameter: If it raises ValueError.
        """
        try:
            return self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} is not UTF-8; give text that is") from None
    return value


def _style_value(value: str) -> float:
    # click's own range type would let NaN pass.
    number = _number(value)
    if not -1 <= number <= 1:
        raise ValueError(f"{value!r} is not a style value; give a number between -1 and 1")
    return number


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


TEXT = Checked("text", _text)
STYLE_VALUE = Checked("value", _style_value)


@dataclass(frozen=True)
class Connection:
    """Where the server is, how long to wait for it, and what each knows the other by."""

    server: str
    timeout: float
    tries: int
    tls: bool
    ca: str | None
    certificate: str | None
    key: str | None
    token: str | None = field(repr=False)

    def client(self) -> "Client":
        """A client, to be closed after use.

        Raises:
            click.UsageError: If a file cannot be used, or the token would cross the network unencrypted.
        """
        # Its core writes a failed handshake to stderr, besides reporting it.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")

        from ..client import Client

        try:
            return Client(
                self.server,
                timeout=self.timeout,
                tries=self.tries,
                tls=self.tls,
                ca=self.ca,
                certificate=self.certificate,
                key=self.key,
                token=self.token,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --server, --timeout, those for TLS and tokens, and --json; the command takes `connection` and `as_json`."""

    @click.option(
        "--server",
        type=Checked("host:port", checked_address),
        default=default_address,
        help=f"The server's address.  [env var: {ENVIRONMENT_VARIABLE}; default: {DEFAULT_ADDRESS}]",
    )
    @click.option(
        "--timeout",
        type=Checked("seconds", lambda value: checked_timeout(float(value))),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        help="How long to wait for one reply, at most a day.",
    )
    @click.option(
        "--tries",
        type=click.IntRange(1, MOST_TRIES),
        default=DEFAULT_TRIES,
        show_default=True,
        metavar="INTEGER",
        help="How often to ask at most, where the server is busy or gone for a moment.",
    )
    @click.option(
        "--tls",
        is_flag=True,
        help=f"Encrypt, and check that the server's certificate is of a public CA.  [env var: {TLS_VARIABLE}=1]",
    )
    @click.option(
        "--ca",
        type=click.Path(),
        help=f"Encrypt, and check that the server's certificate is of a CA in this PEM file.  [env var: {CA_VARIABLE}]",
    )
    @click.option(
        "--certificate",
        type=click.Path(),
        help="Your own certificate, in PEM, where the server asks for one; with --key.  "
        f"[env var: {CERTIFICATE_VARIABLE}]",
    )
    @click.option(
        "--key",
        type=click.Path(),
        help=f"The certificate's private key, in PEM, without a passphrase.  [env var: {KEY_VARIABLE}]",
    )
    @click.option(
        "--token-file",
        "token",
        type=Checked("path", read_token),
        help=f"A file with the token that the server knows you by.  [env var: {TOKEN_FILE_VARIABLE}]",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the result, or the error, as JSON.")
    @functools.wraps(command)
    def with_connection(
        server: str,
        timeout: float,
        tries: int,
        tls: bool,
        ca: str | None,
        certificate: str | None,
        key: str | None,
        token: str | None,
        **arguments: Any,
    ) -> None:
        command(connection=Connection(server, timeout, tries, tls, ca, certificate, key, token), **arguments)

    return with_connection


model_option = click.option(
    "--model", type=TEXT, default="", metavar="NAME", help="The model.  [default: the server's first]"
)

seed_option = click.option(
    "--seed",
    type=click.IntRange(0, _LARGEST_UINT64),
    metavar="INTEGER",
    help="Repeats a draw.  [default: chosen by the server, and printed]",
)

first_index_option = click.option(
    "--first-index",
    type=click.IntRange(0, _LARGEST_UINT64 - MOST_SAMPLES),
    default=0,
    show_default=True,
    metavar="INTEGER",
    help="The index of the first sample: what comes after an earlier draw of the same seed.",
)


def output_option(*forms: Form, description: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds -o/--output, which must name one of the forms."""
    named = Checked("path", lambda text: Destination.parse(text, forms))
    return click.option("-o", "--output", type=named, required=True, help=description)


def check_picture(count: int, remedy: str) -> None:
    """Makes sure that `count` samples may go into one picture, which is held in memory as a whole.

    Raises:
        click.UsageError: If they are too many; it names the remedy.
    """
    if count > _MOST_IN_A_PICTURE:
        raise click.UsageError(f"a picture holds at most {_MOST_IN_A_PICTURE:,} samples, not {count:,}; {remedy}")
