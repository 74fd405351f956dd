"""The `infosink` command."""

import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import click

from .commands.batch import batch
from .commands.infer import infer
from .commands.models import models
from .commands.report import prepare_streams
from .commands.sample import sample
from .commands.traverse import traverse
from .errors import InfosinkError, RequestRefusedError, ServerFailedError, ServerUnreachableError, Violation
from .interruption import Terminated, terminable

_FAILED, _UNREACHABLE, _REFUSED, _SIGNALLED = 1, 3, 4, 128


class _Commands(click.Group):
    """A group whose errors are one line, or one JSON object under --json, on standard error."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = sys.argv[1:] if args is None else list(args)
        prepare_streams()
        try:
            with terminable():
                code = super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
        except (click.ClickException, click.Abort, InfosinkError, OSError, Terminated) as error:
            code = _reported(error, as_json="--json" in arguments)
        if standalone_mode:
            sys.exit(code)
        return code


def _reported(error: BaseException, *, as_json: bool) -> int:
    """Says on standard error what went wrong.

    Returns:
        The exit code.
    """
    details: dict[str, Any] = {}
    violations: list[Violation] = []
    match error:
        case click.ClickException():
            kind, code, message = "usage", error.exit_code, error.format_message()
        case click.Abort():
            kind, code, message = "interrupted", _SIGNALLED + signal.SIGINT, _interrupted(error.__cause__ or error)
        case Terminated():
            kind, code, message = "interrupted", _SIGNALLED + error.signal_number, _interrupted(error)
        case ServerUnreachableError():
            kind, code, message = "unreachable", _UNREACHABLE, str(error)
        case RequestRefusedError():
            kind, code, message = "refused", _REFUSED, str(error)
            violations = error.violations
            details = {
                "code": error.code,
                "reason": error.reason,
                "violations": [asdict(violation) for violation in violations],
                "retry_after": error.retry_after,
            }
        case ServerFailedError():
            kind, code, message = "failed", _FAILED, str(error)
            details = {"code": error.code, "request_id": error.request_id}
        case OSError():
            # Whatever else the system refuses has been given a name of its own.
            kind, code, message = "failed", _FAILED, f"cannot print to standard output: {error.strerror or error}"
        case _:
            kind, code, message = "failed", _FAILED, str(error)
    # Nobody may be reading.
    with suppress(OSError):
        if as_json:
            click.echo(json.dumps({"error": kind, "message": message, **details}), err=True)
        elif isinstance(error, click.ClickException):
            error.show()
        else:
            click.echo(f"Error: {message}", err=True)
            # The message is about the first one; one mistake in an option may be one in many codes.
            told = {violation.description.replace(violation.field, ""): violation for violation in reversed(violations)}
            for violation in violations[1:]:
                if violation in told.values():
                    click.echo(f"  {violation.description}", err=True)
    return code


def _interrupted(error: BaseException) -> str:
    return "; ".join(["interrupted", *getattr(error, "__notes__", ())])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="infosink")
def main() -> None:
    """Sample images of a category in a style from an infosink server, and infer both from images.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server answers, 4 the server refused, 129, 130 or 143 ended from
    outside (SIGHUP, SIGINT, SIGTERM).
    """


for _command in (sample, batch, infer, traverse, models):
    main.add_command(_command)
