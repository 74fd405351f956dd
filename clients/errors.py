"""What can go wrong between a client and a server."""

from collections.abc import Sequence
from dataclasses import dataclass


class InfosinkError(Exception):
    """The base of all errors raised here; its message says what to do."""


class ServerUnreachableError(InfosinkError):
    """No server answered at the address, or none within the deadline."""


@dataclass(frozen=True)
class Violation:
    """What the server says is wrong with one field of a request."""

    field: str
    """The field's path, such as "draw.codes[3].style"."""
    description: str
    """The value, the limit and the remedy."""


class RequestRefusedError(InfosinkError):
    """The server answered and refused the request.

    Attributes:
        code: The gRPC status code's name, such as "INVALID_ARGUMENT".
        details: The server's own words.
        reason: The kind of refusal, such as "LIMIT_EXCEEDED"; empty where the server does not say. docs/errors.md lists
            them.
        violations: The fields at fault; empty where the server names none.
        retry_after: Seconds after which another try may succeed; None where the server does not say.
    """

    def __init__(
        self,
        code: str,
        details: str,
        *,
        reason: str = "",
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(details or f"the server refused the request ({code}) without giving a reason")
        self.code = code
        self.details = details
        self.reason = reason
        self.violations = list(violations)
        self.retry_after = retry_after


class ServerFailedError(InfosinkError):
    """The server answered that it failed; the request may have been right.

    Attributes:
        code: The gRPC status code's name, such as "INTERNAL".
        details: The server's own words.
        request_id: What the server's log knows the request by; empty where the server does not say.
    """

    def __init__(self, code: str, details: str, *, request_id: str = "") -> None:
        super().__init__(
            f"the server failed ({code}): {details or 'it gave no reason'}; its log says more, and another try may do"
        )
        self.code = code
        self.details = details
        self.request_id = request_id


class MalformedReplyError(InfosinkError):
    """The server's reply does not follow `infosink.v1`, or is not about the model that was asked for."""


class UnreadableImageError(InfosinkError):
    """A file that is no image, or not one that the model can read."""


class UnwritableOutputError(InfosinkError):
    """The output cannot be written where, or as, it was asked for."""
