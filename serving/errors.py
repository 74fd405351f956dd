"""The mistakes the server answers for: an operator's at start-up, a client's in a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class StartupError(Exception):
    """The server cannot serve what it was asked to; the message is for the operator."""


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of a request."""

    field: str
    """Its path in proto notation, such as "draw.codes[3].style"."""
    description: str
    """The value, the limit and the remedy, on one line."""
    reason: str
    """The kind of mistake, in UPPER_SNAKE."""


class RequestError(Exception):
    """A request cannot be answered; the message is for the client.

    Args:
        message: The value, the limit and the remedy, on one line.
        reason: The kind of refusal, in UPPER_SNAKE, for programs; docs/errors.md lists them.
        field: The path of the field at fault, in proto notation, where there is one.
        metadata: The value and the limit once more, for programs; keys in lowerCamelCase or snake_case.
        retry_after: Seconds after which another try may succeed; None where the same request never will, or nobody
            knows when.
        violations: The fields at fault where they are several; excludes `field`.
    """

    default_reason: ClassVar[str]
    default_retry_after: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        metadata: Mapping[str, object] | None = None,
        retry_after: float | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after = self.default_retry_after if retry_after is None else retry_after
        self.violations = [Violation(field, message, self.reason)] if field else list(violations)


class InvalidRequestError(RequestError):
    """A value of the request is outside its limits, whatever the server's state."""

    default_reason = "INVALID_REQUEST"


class UnknownModelError(RequestError):
    """No model of the requested name is served; `metadata` names it as "model"."""

    default_reason = "MODEL_UNKNOWN"


class UnavailableError(RequestError):
    """The request is well-formed, but the served model cannot fulfil it."""

    default_reason = "MODEL_UNABLE"


class BusyError(RequestError):
    """The server's capacity for requests of this kind is taken."""

    default_reason = "BUSY"
    default_retry_after = 1.0


class DeadlineError(RequestError):
    """The request's deadline has passed, or comes before the answer could be there."""

    default_reason = "DEADLINE_TOO_SHORT"


class DrainingError(RequestError):
    """The server is shutting down, and takes on no more work."""

    default_reason = "DRAINING"
    default_retry_after = 1.0


class UnauthenticatedError(RequestError):
    """The call bears no token, or none that is accepted; the message never says which it bore."""

    default_reason = "TOKEN_MISSING"


def quoted(text: str, limit: int = 40) -> str:
    """`text` in double quotes, shortened and without control characters, fit for a message."""
    printable = _printable(text)
    return f'"{printable}"' if len(printable) <= limit else f'"{printable[:limit]}…"'


def one_line(error: Exception, limit: int = 300) -> str:
    """What an error of another library says, on one line and shortened, fit for a message."""
    printable = _printable(" ".join(str(error).split()))
    return printable if len(printable) <= limit else f"{printable[:limit]}…"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def listed(texts: Sequence[str], limit: int = 20) -> str:
    """The first `limit` texts, quoted, and how many more there are: status messages must stay short."""
    shown = ", ".join(quoted(text) for text in texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"
