"""All that is wrong with one request, told at once."""

from collections.abc import Sequence
from types import TracebackType

from ..errors import InvalidRequestError, RequestError, Violation

MOST_VIOLATIONS = 16
"""Fields named in one refusal; checking ends there."""


class Faults:
    """Gathers the refusals of checks that do not depend on one another.

    Each check runs within the context, which keeps its refusal and goes on:

        faults = Faults()
        with faults:
            check_one_field()
        with faults:
            check_another()
        faults.refuse()
    """

    def __init__(self) -> None:
        self._errors: list[RequestError] = []
        self._violations = 0

    def __enter__(self) -> None:
        """Begins a check."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Keeps a refusal, and lets everything else through.

        Raises:
            RequestError: If enough is wrong to say no more.
        """
        if not isinstance(error, RequestError):
            return False
        self._errors.append(error)
        self._violations += max(1, len(error.violations))
        if self._violations >= MOST_VIOLATIONS:
            raise _combined(self._errors) from None
        return True

    def refuse(self) -> None:
        """Raises what was gathered, if anything was.

        Raises:
            RequestError: One for all.
        """
        if self._errors:
            raise _combined(self._errors) from None


def _combined(errors: Sequence[RequestError]) -> RequestError:
    # What is wrong whatever the server's state comes first, and decides the status.
    ranked = sorted(errors, key=lambda error: not isinstance(error, InvalidRequestError))
    first = ranked[0]
    violations: list[Violation] = [violation for error in ranked for violation in error.violations]
    violations = violations[:MOST_VIOLATIONS]
    if len(violations) < 2:
        return first
    more = "at least " * (len(violations) == MOST_VIOLATIONS) + str(len(violations) - 1)
    message = f"{violations[0].description} (and {more} more)"
    return type(first)(message, reason=first.reason, metadata=first.metadata, violations=violations)
