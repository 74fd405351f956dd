"""infosink-serve."""

import importlib.util
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shipped import SHIPPED, shipped_models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .runtime import Device

_DISTRIBUTIONS = {
    "numpy": "numpy",
    "PIL": "pillow",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "google.protobuf": "protobuf",
    "onnxruntime": "onnxruntime-gpu",
}
"""What must be installed, by the module it brings."""
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


def _named_paths(
    _context: click.Context, _parameter: click.Parameter, values: "Sequence[str]"
) -> list[tuple[str | None, Path]]:
    """Each [NAME=]PATH as its name, None where not given, and its path."""
    return [_named_path(value) for value in values]


def _named_path(value: str) -> tuple[str | None, Path]:
    name, equals, path = value.partition("=")
    # A path may hold an equals sign too; a name holds no separator.
    if not equals or "/" in name or _exists(Path(value)):
        return None, Path(value)
    if not name or not path:
        raise click.BadParameter(f'"{value}" is not [NAME=]PATH')
    return name, Path(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # What cannot even be looked up, such as a name of a thousand letters, is no file.
        return False


def _host(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _HOST.fullmatch(value):
        raise click.BadParameter(f"{value!a} is no host name or IP address: name an interface, such as 127.0.0.1")
    return value


def _seconds(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    # NaN lies in every range, as far as click's comparisons tell.
    if math.isnan(value):
        raise click.BadParameter("nan is no number of seconds: give 0 to 3600")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    "models",
    metavar="[NAME=]PATH",
    callback=_named_paths,
    multiple=True,
    help="A generator, as infosink-export wrote it, and the name to serve it by: its own name by default. Repeatable; "
    "the first one answers where a request names none. "
    f"[default: the models that ship with infosink: {', '.join(SHIPPED)}]",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    help="The generator's encoder, for inferring codes; with one --model only. "
    "[default: q.onnx beside gen.onnx, X-q.onnx beside X-gen.onnx, where it exists]",
)
@click.option("--host", default="127.0.0.1", callback=_host, show_default=True, help="The interface to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=50051,
    show_default=True,
    help="The port to listen on; 0 picks a free one, which the ready line states.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to run the models; auto means CUDA where there is a device.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads that share one run on the CPU. [default: the cores]"
)
@click.option(
    "--max-samples",
    type=click.IntRange(1, 2**32 - 1),
    default=1_000_000,
    show_default=True,
    help="Samples in one StreamSamples call.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=30,
    callback=_seconds,
    show_default=True,
    help="Seconds that calls under way may take to end after INT or TERM.",
)
@click.version_option(package_name="infosink")
def main(
    models: "Sequence[tuple[str | None, Path]]",
    encoder: Path | None,
    host: str,
    port: int,
    device: "Device",
    threads: int | None,
    max_samples: int,
    grace: float,
) -> None:
    """Serve models over gRPC until INT or TERM: sampling by code, and inference of the codes.

    Without --model, the models that ship with infosink are served.
    """
    if encoder is not None and len(models) != 1:
        raise click.UsageError("--encoder goes with one --model; several, and those that ship, find theirs beside them")
    missing = [distribution for module, distribution in _DISTRIBUTIONS.items() if not _is_installed(module)]
    if missing:
        raise click.ClickException(
            f"infosink-serve needs {missing[0]}: install it with pip install 'infosink[serving]'"
        )
    models = models or shipped_models()
    if not models:
        raise click.ClickException(
            "this installation lacks the models that ship with infosink: name one with --model, or install it again"
        )
    _quieten_grpc()

    from .errors import StartupError
    from .process import serve

    try:
        serve(
            models,
            encoder=encoder,
            host=host,
            port=port,
            device=device,
            threads=threads,
            stream_samples=max_samples,
            grace=grace,
        )
    except StartupError as error:
        raise click.ClickException(str(error)) from None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _quieten_grpc() -> None:
    # Its core writes a bind's failure to stderr, besides raising it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
