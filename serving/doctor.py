"""What this machine has that serving needs, what is wrong with it, and the line that puts it right."""

import ctypes
import importlib
import importlib.metadata
import platform
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from .cores import usable_cores
from .errors import StartupError, one_line
from .settings import Settings
from .shipped import SHIPPED, shipped_models

_REQUIRED = {
    "googleapis-common-protos": "google.rpc.status_pb2",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health.v1.health_pb2",
    "grpcio-reflection": "grpc_reflection.v1alpha.reflection_pb2",
    "numpy": "numpy",
    "pillow": "PIL.Image",
    "prometheus-client": "prometheus_client",
    "protobuf": "google.protobuf.message",
}
"""The distributions that serving is made of, besides onnxruntime, each with a module that tells whether it works."""
_INSTALL = "pip install 'infosink[serving]'"
_INSTALL_CUDA = "pip install 'infosink[cuda]'"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        state: How it is.
        remedy: The line that puts it right; None where nothing is wrong.
        fatal: Whether serving as asked for fails because of it.
    """

    subject: str
    state: str
    remedy: str | None = None
    fatal: bool = False


def would_serve(settings: Settings) -> bool:
    """Prints what is found, as it is found; returns whether serving so would work, on the CPU at least."""
    works = True
    for finding in examine(settings):
        works = works and not finding.fatal
        mark = "FAILS" if finding.fatal else "ok" if finding.remedy is None else "wrong"
        click.echo(f"{mark:7}{finding.subject:24}{finding.state}")
        if finding.remedy is not None:
            click.echo(f"{'':7}fix: {finding.remedy}")
    click.echo("serving would work" if works else "serving would fail")
    return works


def examine(settings: Settings) -> Iterator[Finding]:
    """Looks at all that serving needs, quick things first; nothing is changed, and nothing stays bound.

    Args:
        settings: What would be served, where. Without models, those that ship.
    """
    yield Finding("infosink", importlib.metadata.version("infosink"))
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    missing = False
    for distribution, module in _REQUIRED.items():
        finding = _installed(distribution, module)
        missing = missing or finding.fatal
        yield finding
    yield from _onnxruntime_packages()
    yield _cores(settings)
    yield _port("port", settings.host, settings.port)
    taken = {settings.port}
    for subject, port in (("health port", settings.health_port), ("metrics port", settings.metrics_port)):
        if port is not None:
            yield _port(subject, settings.host, port, taken)
            taken.add(port)
    try:
        from .runtime.quiet_onnxruntime import onnxruntime
    except Exception as error:
        # A broken installation fails in many ways, not all of them an ImportError.
        yield Finding("onnxruntime", f"cannot be loaded: {one_line(error)}", _INSTALL, fatal=True)
        return
    built_for = f", built for CUDA {onnxruntime.cuda_version}" if onnxruntime.cuda_version else ""
    yield Finding("onnxruntime", f"{onnxruntime.__version__}{built_for}, in {Path(onnxruntime.__file__).parent}")
    yield Finding("providers built in", ", ".join(onnxruntime.get_available_providers()))
    yield Finding("telemetry", "off (ORT_DISABLE_TELEMETRY=1)")
    yield from _cuda(settings)
    if not missing:
        yield _access(settings)
        yield from _models(settings)


def _installed(distribution: str, module: str) -> Finding:
    try:
        version = importlib.metadata.version(distribution)
        importlib.import_module(module)
    except importlib.metadata.PackageNotFoundError:
        return Finding(distribution, "not installed", _INSTALL, fatal=True)
    except Exception as error:
        # Versions that do not go together fail in ways of their own.
        return Finding(distribution, f"{version} cannot be loaded: {one_line(error)}", _INSTALL, fatal=True)
    return Finding(distribution, version)


def _onnxruntime_packages() -> Iterator[Finding]:
    """Which distributions bring onnxruntime; two write over each other's files."""
    names = sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", [])))
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    if len(names) > 1:
        kept = "onnxruntime-gpu" if "onnxruntime-gpu" in names else names[0]
        yield Finding(
            "onnxruntime packages",
            f"{found}: each wrote over files of the other",
            f"pip uninstall --yes {' '.join(names)} && pip install {kept}",
        )
    elif names:
        yield Finding("onnxruntime package", found)


def _cores(settings: Settings) -> Finding:
    cores = usable_cores()
    threads = "--threads" if settings.threads else "the default"
    return Finding("cores", f"{cores} usable; {settings.threads or cores} threads share one run, by {threads}")


def _port(subject: str, host: str, port: int, taken: Collection[int] = ()) -> Finding:
    state = f"{host}:{port}"
    option = f"--{subject.replace(' ', '-')}"
    if port and port in taken:
        return Finding(subject, f"{state}: asked for twice", f"{option} with another port, or 0 for any", fatal=True)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server would: a port that is merely closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return Finding(subject, f"{state}: {error.strerror}", f"{option} with another port, or 0 for any", fatal=True)
    return Finding(subject, f"{state} is free")


def _access(settings: Settings) -> Finding:
    from .security.access import access

    try:
        lack = access(settings).lack
    except StartupError as error:
        return Finding("access", str(error), "what the message says", fatal=True)
    if lack:
        remedy = "--tls-certificate with --tls-key, and --token-file or --client-ca; or --host 127.0.0.1"
        return Finding("access", f"from other machines, without {lack}", remedy)
    return Finding("access", "from this machine alone, or guarded")


def _cuda(settings: Settings) -> Iterator[Finding]:
    """The CUDA driver, its devices, the libraries, and whether a model runs there; nothing if that is not wanted."""
    from .runtime import cuda
    from .runtime.quiet_onnxruntime import onnxruntime

    if settings.device == "cpu":
        return
    asked_for = settings.device == "cuda"
    driver, devices = cuda.driver_version(), cuda.cuda_devices()
    if driver is None:
        remedy = "install the NVIDIA driver, or use --device cpu" if asked_for else None
        yield Finding("CUDA driver", "none: the CPU serves", remedy, fatal=asked_for)
    elif devices == 0:
        remedy = "see that nvidia-smi lists one here; in a container, start it with --gpus all" if asked_for else None
        yield Finding("CUDA devices", f"none, of a driver for CUDA {driver[0]}.{driver[1]}", remedy, fatal=asked_for)
    else:
        yield Finding("CUDA devices", f"{devices}, of a driver for CUDA {driver[0]}.{driver[1]}")
    if cuda.PROVIDER not in onnxruntime.get_available_providers():
        wrong = devices > 0
        yield Finding(
            "CUDA provider", "not built in", f"pip uninstall --yes onnxruntime && {_INSTALL_CUDA}" if wrong else None,
            fatal=asked_for,
        )  # fmt: skip
        return
    major = int(onnxruntime.cuda_version.split(".")[0])
    if driver is not None and driver[0] < major:
        yield Finding(
            "CUDA driver", f"for CUDA {driver[0]}, older than the {major} that onnxruntime is built for",
            f"install an NVIDIA driver for CUDA {major}", fatal=asked_for,
        )  # fmt: skip
    cuda.load_libraries()
    for library in cuda.library_names(major):
        path = _loaded_from(library)
        wrong = path is None and devices > 0
        state = path or ("not found" if wrong else "not found; not needed without a device")
        yield Finding(library, state, _INSTALL_CUDA if wrong else None, fatal=wrong and asked_for)
    if devices:
        yield _cuda_session(asked_for)


def _loaded_from(library: str) -> str | None:
    """The file that a shared library is loaded from; None where it cannot be."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return None
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return "found"
    return next((words[-1] for line in maps.splitlines() if library in (words := line.split())[-1]), "found")


def _cuda_session(asked_for: bool) -> Finding:
    from .runtime.session import Session

    for _, path in shipped_models():
        try:
            Session(path.read_bytes(), path, "cuda", 1)
        except (StartupError, OSError) as error:
            return Finding("CUDA session", one_line(error), "--device cpu until that is mended", fatal=asked_for)
    return Finding("CUDA session", "can be made")


def _models(settings: Settings) -> Iterator[Finding]:
    """Whether each model can be loaded, and passes what a server checks of it, on the CPU."""
    from .models.model_sources import find_models
    from .models.served_model import load_model

    if not settings.models:
        shipped = dict(shipped_models())
        for name in SHIPPED:
            if name not in shipped:
                yield Finding(
                    f"model {name}", "missing", "pip install --force-reinstall --no-deps infosink", fatal=True
                )
    try:
        sources = find_models(settings.models or shipped_models(), settings.encoder)
    except StartupError as error:
        yield Finding("models", str(error), "another --model", fatal=True)
        return
    for source in sources:
        subject = f"model {source.name or source.generator.name}"
        try:
            model = load_model(
                source.generator,
                name=source.name,
                encoder_path=source.encoder,
                device="cpu",
                threads=settings.threads or usable_cores(),
                stream_samples=settings.stream_samples,
            )
        except StartupError as error:
            yield Finding(subject, str(error), "infosink-export RUN, or another --model", fatal=True)
            continue
        codes = "" if model.encoder else ", without its encoder"
        yield Finding(subject, f"loads, of checkpoint {model.checkpoint_sha256[:12]}{codes}")
        model.close()
