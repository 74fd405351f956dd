"""infosink-serve."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .runtime import Device

_SERVING_MODULES = ("numpy", "PIL", "grpc", "grpc_health", "grpc_reflection", "google.protobuf", "onnxruntime")


def _named_paths(
    _context: click.Context, _parameter: click.Parameter, values: "Sequence[str]"
) -> list[tuple[str | None, Path]]:
    """Each [NAME=]PATH as its name, None where not given, and its path."""
    return [_named_path(value) for value in values]


def _named_path(value: str) -> tuple[str | None, Path]:
    name, equals, path = value.partition("=")
    # A path may hold an equals sign too; a name holds no separator.
    if not equals or "/" in name or Path(value).exists():
        return None, Path(value)
    if not name or not path:
        raise click.BadParameter(f'"{value}" is not [NAME=]PATH')
    return name, Path(path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    "models",
    metavar="[NAME=]PATH",
    callback=_named_paths,
    multiple=True,
    required=True,
    help="A generator, as infosink-export wrote it, and the name to serve it by: its own name by default. Repeatable; "
    "the first one answers where a request names none.",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    help="The generator's encoder, for inferring codes; with one --model only. "
    "[default: q.onnx beside gen.onnx, X-q.onnx beside X-gen.onnx, where it exists]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The interface to listen on.")
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
    """Serve models over gRPC until INT or TERM: sampling by code, and inference of the codes."""
    if encoder is not None and len(models) > 1:
        raise click.UsageError("--encoder goes with one --model; several find theirs beside them")
    missing = [module for module in _SERVING_MODULES if not _is_installed(module)]
    if missing:
        _fail(f"{missing[0]} is not installed: pip install 'infosink[serving]'")
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
        _fail(str(error))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _quieten_grpc() -> None:
    # Its core writes a bind's failure to stderr, besides raising it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _fail(message: str) -> None:
    click.echo(f"infosink-serve: error: {message}", err=True)
    sys.exit(1)
