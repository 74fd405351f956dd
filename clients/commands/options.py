"""Options that several commands share."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..address import DEFAULT_ADDRESS, ENVIRONMENT_VARIABLE, checked_address, default_address
from ..destination import Destination, Form

if TYPE_CHECKING:
    from ..client import Client

_LARGEST_UINT64 = 2**64 - 1
MOST_SAMPLES = 10_000_000

COUNT = click.IntRange(1, MOST_SAMPLES)
CATEGORY = click.IntRange(0, 2**32 - 1)


class _Address(click.ParamType[str]):
    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return checked_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class StyleValue(click.ParamType[float]):
    """A style value: a number in [-1, 1], which click's own range type would let NaN pass for."""

    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: If it is none, or out of range.
        """
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not -1 <= number <= 1:
            self.fail(f"{value!r} is not a style value; give a number between -1 and 1", param, ctx)
        return number


class Output(click.ParamType[Destination]):
    """A path whose name says in which form samples are written to it."""

    name = "path"

    def __init__(self, *forms: Form) -> None:
        self.forms = forms

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Destination:
        """The destination.

        Raises:
            click.BadParameter: If the command cannot write that form.
        """
        try:
            return Destination.parse(value, self.forms)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True)
class Connection:
    """Where the server is and how long to wait for it."""

    server: str
    timeout: float

    def client(self) -> "Client":
        """A client, to be closed after use."""
        from ..client import Client

        return Client(self.server, timeout=self.timeout)


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --server, --timeout and --json; the command takes `connection` and `as_json`."""

    @click.option(
        "--server",
        type=_Address(),
        default=default_address,
        help=f"The server's address.  [env var: {ENVIRONMENT_VARIABLE}; default: {DEFAULT_ADDRESS}]",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(0, 86_400, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for one reply.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the result, or the error, as JSON.")
    @functools.wraps(command)
    def with_connection(server: str, timeout: float, **arguments: Any) -> None:
        command(connection=Connection(server, timeout), **arguments)

    return with_connection


model_option = click.option("--model", default="", metavar="NAME", help="The model.  [default: the server's first]")

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
    return click.option("-o", "--output", type=Output(*forms), required=True, help=description)
