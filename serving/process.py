"""One serving process: models loaded, signals heeded, the ready line written."""

import ipaddress
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from .errors import StartupError, quoted
from .model_file import is_model_name
from .runtime import RUNTIME_VERSION, Device
from .served_model import ServedModel, load_model
from .server import Server

_logger = logging.getLogger(__name__)


def serve(
    models: Sequence[tuple[str | None, Path]],
    *,
    encoder: Path | None,
    host: str,
    port: int,
    device: Device,
    threads: int | None,
    stream_samples: int,
    grace: float,
) -> None:
    """Serves until INT or TERM, then drains; a second signal ends the process at once.

    Args:
        models: The generators' files, each with the name to serve it by, or None for its own.
        encoder: The encoder of the only model; found beside each generator where None.
        host: The interface to listen on.
        port: The port to listen on; 0 picks a free one.
        device: Where to run the models.
        threads: The threads that share one run on the CPU; one for each core where None.
        stream_samples: The limit of one StreamSamples call.
        grace: Seconds that calls under way may take to end.

    Raises:
        StartupError: If a model cannot be served, or the address cannot be bound.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="infosink-serve: %(levelname)s: %(message)s")
    loaded = _load(models, encoder, device, threads or _cores(), stream_samples)
    server = Server(loaded, host, port)
    stop = stop_on_signals()
    server.start()
    if not _is_loopback(host):
        _logger.warning("%s is reachable from other machines, without authentication or encryption", server.address)
    _say(_ready_line(loaded, server.address))
    stop.wait()
    ended = server.drain(grace)
    _say(f"infosink-serve: draining, for at most {grace:g} seconds")
    ended.wait()
    _say("infosink-serve: stopped")


def _say(line: str) -> None:
    """Writes a line to whoever reads; a reader that has gone is no reason to stop serving or to skip draining."""
    try:
        click.echo(line)
    except OSError:
        # What is left in the buffer would fail again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _load(
    models: Sequence[tuple[str | None, Path]],
    encoder: Path | None,
    device: Device,
    threads: int,
    stream_samples: int,
) -> list[ServedModel]:
    loaded: dict[str, ServedModel] = {}
    for name, path in models:
        if name is not None and not is_model_name(name):
            raise StartupError(f"{quoted(name)} cannot name a model: use 1 to 64 of A-Z a-z 0-9 . _ -")
        model = load_model(
            path, name=name, encoder_path=encoder, device=device, threads=threads, stream_samples=stream_samples
        )
        if model.name in loaded:
            raise StartupError(f"two models are named {model.name}: name one otherwise with --model NAME={path}")
        loaded[model.name] = model
    return list(loaded.values())


def _cores() -> int:
    # Not every system can say which cores this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stop_on_signals() -> threading.Event:
    """An event that the first INT or TERM sets; the second ends the process.

    The system hands the signals over in a pipe, which a thread reads. A handler in Python would not do: it runs between
    two steps of the main thread, too late where that has just gone to wait for good, and it waits for itself where it
    sets an event whose lock the main thread holds.
    """
    stop = threading.Event()
    received, handed_over = os.pipe()

    def heed() -> None:
        os.read(received, 1)
        stop.set()
        (number,) = os.read(received, 1)
        os._exit(128 + number)

    threading.Thread(target=heed, daemon=True).start()
    os.set_blocking(handed_over, False)
    signal.set_wakeup_fd(handed_over)
    for number in (signal.SIGINT, signal.SIGTERM):
        # What has no handler at all is not handed over.
        signal.signal(number, lambda *_: None)
    return stop


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ready_line(models: Sequence[ServedModel], address: str) -> str:
    described = ", ".join(_summary(model) for model in models)
    providers = ", ".join(dict.fromkeys(model.generator.execution_provider for model in models))
    return f"infosink-serve: SERVING {described} on {address}, {providers}, onnxruntime {RUNTIME_VERSION}"


def _summary(model: ServedModel) -> str:
    categories = "1 category" if len(model.labels) == 1 else f"{len(model.labels)} categories"
    styles = "1 style" if model.style_count == 1 else f"{model.style_count} styles"
    inferred = "codes inferred" if model.encoder is not None else "codes not inferred"
    return f"{model.name} ({categories}, {styles}, {inferred})"
