"""The mistakes the server answers for: an operator's at start-up, a client's in a request."""

from collections.abc import Sequence


class StartupError(Exception):
    """The server cannot serve what it was asked to; the message is for the operator."""


class RequestError(Exception):
    """A request cannot be answered; the message is for the client."""


class InvalidRequestError(RequestError):
    """A value of the request is outside its limits, whatever the server's state."""


class UnknownModelError(RequestError):
    """No model of the requested name is served."""


class UnavailableError(RequestError):
    """The request is well-formed, but the served model cannot fulfil it."""


class BusyError(RequestError):
    """The server's capacity for requests of this kind is taken."""


class AbandonedError(RequestError):
    """The client has gone, so nobody waits for the answer."""


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
