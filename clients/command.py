"""The `infosink` command."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from .commands.batch import batch
from .commands.infer import infer
from .commands.models import models
from .commands.sample import sample
from .commands.traverse import traverse
from .errors import InfosinkError, RequestRefusedError, ServerUnreachableError

_FAILED, _USAGE, _UNREACHABLE, _REFUSED, _INTERRUPTED = 1, 2, 3, 4, 130


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
        try:
            code = super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
        except click.Abort:
            code = _fail("interrupted", "interrupted; nothing was written", _INTERRUPTED, arguments)
        except click.ClickException as error:
            code = _misused(error, arguments)
        except ServerUnreachableError as error:
            code = _fail("unreachable", str(error), _UNREACHABLE, arguments)
        except RequestRefusedError as error:
            code = _fail("refused", str(error), _REFUSED, arguments, code=error.code)
        except InfosinkError as error:
            code = _fail("failed", str(error), _FAILED, arguments)
        if standalone_mode:
            sys.exit(code)
        return code


def _misused(error: click.ClickException, arguments: Sequence[str]) -> int:
    if "--json" in arguments:
        return _fail("usage", error.format_message(), error.exit_code, arguments)
    error.show()
    return error.exit_code


def _fail(kind: str, message: str, exit_code: int, arguments: Sequence[str], **more: str) -> int:
    if "--json" in arguments:
        click.echo(json.dumps({"error": kind, "message": message, **more}), err=True)
    else:
        click.echo(f"infosink: {message}", err=True)
    return exit_code


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="infosink")
def main() -> None:
    """Sample images of a category in a style from an infosink server, and infer both from images.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server answers, 4 the server refused, 130 interrupted.
    """


for _command in (sample, batch, infer, traverse, models):
    main.add_command(_command)
