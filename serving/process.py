"""One serving process: models loaded, signals heeded, the ready line written."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import click

from .cores import usable_cores
from .errors import StartupError, quoted
from .models.model_file import is_model_name
from .models.model_sources import ModelSource, find_models
from .models.registry import Registry
from .models.reload import Reloader
from .models.served_model import ServedModel, load_model
from .observation.interceptor import ObservationInterceptor
from .observation.metrics import Metrics
from .observation.metrics_endpoint import serve_metrics
from .observation.request_log import json_line, start_logging
from .observation.tracing import tracing_from_environment
from .runtime.admission import STREAMS_ROWS
from .runtime.batching import QueueBounds
from .runtime.session import RUNTIME_VERSION
from .security.access import Access, access, is_loopback
from .server import METHODS, Server
from .settings import LogFormat, Settings
from .signals import StopSignals

_logger = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
"""How long the event loop waits at most for another thread that computes in Python."""


def serve(settings: Settings, signals: StopSignals) -> None:
    """Serves until INT or TERM, then drains; a second signal ends the process at once.

    Args:
        settings: What to serve, and how.
        signals: Taken over already.

    Raises:
        StartupError: If a model cannot be served, an address cannot be bound, or a certificate or token be used.
    """
    start_logging(settings.log_format, settings.log_level)
    sys.setswitchinterval(_SWITCH_SECONDS)
    hung_up = threading.Event()
    signals.call_on(signal.SIGHUP, hung_up.set)
    guarded = access(settings)
    sources = find_models(settings.models, settings.encoder)
    registry = Registry([_load(source, source.name, settings) for source in sources])
    asyncio.run(_serve(registry, sources, settings, guarded, signals, hung_up))


async def _serve(
    registry: Registry,
    sources: Sequence[ModelSource],
    settings: Settings,
    guarded: Access,
    signals: StopSignals,
    hung_up: threading.Event,
) -> None:
    metrics = Metrics(METHODS, registry.all)
    async with AsyncExitStack() as ending:
        tracing = tracing_from_environment()
        if tracing is not None:
            ending.callback(tracing.close)
        interceptors = (ObservationInterceptor(metrics, tracing), *guarded.interceptors)
        metrics_address = None
        if settings.metrics_port is not None:
            host = "127.0.0.1" if is_loopback(settings.host) else settings.host
            metrics_address = await ending.enter_async_context(serve_metrics(metrics, host, settings.metrics_port))
        server = Server(registry, settings, interceptors=interceptors, credentials=guarded.credentials)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        # What is there by now stays. To search it for garbage again and again would hold calls up for 20 ms each time.
        gc.collect()
        gc.freeze()
        await server.start()
        signals.stop_with(lambda: loop.call_soon_threadsafe(stop.set))
        reloader = _reloader(registry, sources, settings, server, metrics)
        reloading = asyncio.create_task(reloader.run(settings.watch))
        signals.call_on(signal.SIGHUP, lambda: loop.call_soon_threadsafe(reloader.request))
        if hung_up.is_set():
            reloader.request()
        if guarded.lack:
            _logger.warning("%s is reachable from other machines, without %s", server.address, guarded.lack)
        beside = {"health": server.health_address, "metrics": metrics_address}
        _say(_ready_line(registry.all(), server.address, beside), settings.log_format)
        await stop.wait()
        reloading.cancel()
        if settings.lame_duck:
            server.health.not_serving()
            _say(f"NOT_SERVING; calls are accepted for {settings.lame_duck:g} seconds more", settings.log_format)
            await asyncio.sleep(settings.lame_duck)
        ended = asyncio.create_task(server.drain(settings.grace))
        _say(f"draining, for at most {settings.grace:g} seconds", settings.log_format)
        await ended
        for model in registry.all():
            # The interpreter must not end under a run.
            model.close()
        _say("stopped", settings.log_format)


def _say(line: str, log_format: LogFormat) -> None:
    """Writes a line to whoever reads; a reader that has gone is no reason to stop serving or to skip draining."""
    try:
        click.echo(f"infosink-serve: {line}" if log_format == "text" else json_line("INFO", line))
    except OSError:
        # What is left in the buffer would fail again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _load(source: ModelSource, name: str | None, settings: Settings) -> ServedModel:
    if name is not None and not is_model_name(name):
        raise StartupError(f"{quoted(name)} cannot name a model: use 1 to 64 of A-Z a-z 0-9 . _ -")
    _logger.debug("loading %s", source.generator)
    return load_model(
        source.generator,
        name=name,
        encoder_path=source.encoder,
        device=settings.device,
        threads=settings.threads or usable_cores(),
        stream_samples=settings.stream_samples,
        cuda_graphs=settings.cuda_graphs,
        queue=queue_bounds(settings),
    )


def _reloader(
    registry: Registry, sources: Sequence[ModelSource], settings: Settings, server: Server, metrics: Metrics
) -> Reloader:
    return Reloader(
        registry,
        dict(zip(sources, (model.name for model in registry.all()), strict=True)),
        find=lambda: find_models(settings.models, settings.encoder),
        load=lambda source, name: _load(source, name, settings),
        device=settings.device,
        changed=server.health.renamed,
        counted=metrics.reloaded,
    )


def queue_bounds(settings: Settings) -> QueueBounds:
    """Those of each session: what admission lets in fits, from the first chunk to the last."""
    rows = settings.queue_rows + STREAMS_ROWS
    return QueueBounds(rows=rows, size=2 * settings.queue_bytes, delay=settings.batch_delay)


def _ready_line(models: Sequence[ServedModel], address: str, beside: Mapping[str, str | None]) -> str:
    described = ", ".join(_summary(model) for model in models)
    providers = ", ".join(dict.fromkeys(model.generator.execution_provider for model in models))
    others = "".join(f", {what} on {where}" for what, where in beside.items() if where)
    return f"SERVING {described} on {address}, {providers}, onnxruntime {RUNTIME_VERSION}{others}"


def _summary(model: ServedModel) -> str:
    categories = "1 category" if len(model.labels) == 1 else f"{len(model.labels)} categories"
    styles = "1 style" if model.style_count == 1 else f"{model.style_count} styles"
    inferred = "codes inferred" if model.encoder is not None else "codes not inferred"
    return f"{model.name} ({categories}, {styles}, {inferred})"
