"""infosink-serve."""

import importlib.util
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shipped import SHIPPED, shipped_models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import LogFormat, LogLevel

_DISTRIBUTIONS = {
    "numpy": "numpy",
    "PIL": "pillow",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "prometheus_client": "prometheus-client",
    "onnxruntime": "onnxruntime-gpu",
}
"""What must be installed, by the module it brings."""
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_URI_SCHEMES = frozenset(
    ["dns", "google-c2p", "google-c2p-experimental", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"]
)
"""What gRPC does not take for a host before a colon: unix:50051 would be the file of a socket."""


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
    if value in _URI_SCHEMES:
        raise click.BadParameter(f"{value} is a scheme of URIs to gRPC: name an interface, such as 127.0.0.1")
    return value


class _Seconds(click.FloatRange):
    """A number of seconds."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        # NaN lies in every range, as far as click's comparisons tell.
        if math.isnan(seconds):
            self.fail(f"nan is no number of seconds: give {self.min:g} to {self.max:g}", param, ctx)
        return seconds


_PORT = click.IntRange(0, 65535)
_FILE = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    "models",
    metavar="[NAME=]PATH",
    callback=_named_paths,
    multiple=True,
    help="A generator, as infosink-export wrote it, and the name to serve it by: its own name by default. Or a folder: "
    "of gen.onnx, and of X-gen.onnx by the name X. Repeatable; the first one answers where a request names none. "
    f"[default: the models that ship with infosink: {', '.join(SHIPPED)}]",
)
@click.option(
    "--encoder",
    type=_FILE,
    help="The generator's encoder, for inferring codes; with one --model only. "
    "[default: q.onnx beside gen.onnx, X-q.onnx beside X-gen.onnx, where it exists]",
)
@click.option("--host", default="127.0.0.1", callback=_host, show_default=True, help="The interface to listen on.")
@click.option(
    "--port",
    type=_PORT,
    default=50051,
    show_default=True,
    help="The port to listen on; 0 picks a free one, which the ready line states.",
)
@click.option(
    "--health-port",
    type=_PORT,
    help="A port of its own for health, in the clear and without tokens, for whoever restarts what is not healthy.",
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
@click.option("--cuda-graphs", is_flag=True, help="Replay CUDA graphs, if they give what the model gives without.")
@click.option(
    "--max-samples",
    type=click.IntRange(1, 2**32 - 1),
    default=1_000_000,
    show_default=True,
    help="Samples in one StreamSamples call.",
)
@click.option(
    "--queue-rows",
    type=click.IntRange(128, 2**20),
    default=4096,
    show_default=True,
    help="Samples, of all unary calls, that may wait or be computed at once; what comes on top is refused.",
)
@click.option(
    "--queue-bytes",
    type=click.IntRange(2**26, 2**40),
    default=256 * 2**20,
    show_default=True,
    help="The memory that unary calls may take at once; what comes on top is refused.",
)
@click.option(
    "--batch-delay",
    type=_Seconds(0, 0.01),
    default=0,
    show_default=True,
    help="Seconds that samples wait for others to be computed with, while nothing is being computed.",
)
@click.option(
    "--lame-duck",
    type=_Seconds(0, 3600),
    default=0,
    show_default=True,
    help="Seconds after INT or TERM in which calls are still accepted, though health says NOT_SERVING.",
)
@click.option(
    "--grace",
    type=_Seconds(0, 3600),
    default=30,
    show_default=True,
    help="Seconds that calls under way may take to end after that.",
)
@click.option(
    "--watch",
    type=_Seconds(0.1, 86400),
    help="Seconds between two looks for changed model files, to serve them anew. [default: on HUP only]",
)
@click.option(
    "--tls-certificate",
    type=_FILE,
    help="The server's certificate, and those between it and its CA, in PEM: encrypts; with --tls-key.",
)
@click.option("--tls-key", type=_FILE, help="The certificate's private key, PEM.")
@click.option("--client-ca", type=_FILE, help="The authority whose certificates clients must show, PEM.")
@click.option("--token-file", type=_FILE, help="The tokens of which clients must show one, one a line.")
@click.option("--metrics-port", type=_PORT, help="A port for Prometheus to read metrics from.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to write the log."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least that is written to the log.",
)
@click.option(
    "--doctor",
    is_flag=True,
    help="Do not serve: look at all that serving so needs, and print it, with the line that fixes what is wrong. Exits "
    "with 0 if it would work.",
)
@click.version_option(package_name="infosink")
def main(
    models: "Sequence[tuple[str | None, Path]]",
    encoder: Path | None,
    max_samples: int,
    log_format: "LogFormat",
    log_level: "LogLevel",
    doctor: bool,
    **options: Any,
) -> None:
    """Serve models over gRPC until INT or TERM: sampling by code, and inference of the codes.

    Without --model, the models that ship with infosink are served.
    """
    if encoder is not None and len(models) != 1:
        raise click.UsageError("--encoder goes with one --model; several, and those that ship, find theirs beside them")
    if (options["tls_certificate"] is None) != (options["tls_key"] is None):
        raise click.UsageError("--tls-certificate and --tls-key go together: give both, or neither")
    if options["client_ca"] is not None and options["tls_certificate"] is None:
        raise click.UsageError("--client-ca goes with --tls-certificate and --tls-key: give those too")
    from .settings import Settings

    settings = Settings(
        models=tuple(models),
        encoder=encoder,
        stream_samples=max_samples,
        log_format=log_format,
        log_level=log_level,
        **options,
    )
    if doctor:
        from .doctor import would_serve

        raise SystemExit(0 if would_serve(settings) else 1)
    missing = [distribution for module, distribution in _DISTRIBUTIONS.items() if not _is_installed(module)]
    if missing:
        raise click.ClickException(
            f"infosink-serve needs {missing[0]}: install it with pip install 'infosink[serving]'"
        )
    if not settings.models:
        settings = replace(settings, models=tuple(shipped_models()))
    if not settings.models:
        raise click.ClickException(
            "this installation lacks the models that ship with infosink: name one with --model, or install it again"
        )
    _quieten_grpc()

    from .signals import StopSignals

    # What follows takes seconds.
    signals = StopSignals()

    from .errors import StartupError, one_line

    try:
        from .process import serve
    except Exception as error:
        # Packages whose versions do not go together fail in ways of their own.
        raise click.ClickException(
            f"what serving needs cannot be loaded: {one_line(error)}: infosink-serve --doctor says what to install"
        ) from None
    try:
        serve(settings, signals)
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
