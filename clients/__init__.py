"""The clients of an infosink server: a typed Python client and the `infosink` command.

    from infosink.clients import Client

    with Client() as client:
        sevens = client.sample(16, label="7", style=[0.5, -0.3], seed=1)

The names below are imported on first use, so that `infosink --help` waits for neither numpy nor grpc.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client
    from .draws import Code
    from .errors import (
        InfosinkError,
        MalformedReplyError,
        RequestRefusedError,
        ServerFailedError,
        ServerUnreachableError,
        Violation,
    )
    from .results import InferredCodes, Samples

__all__ = [
    "Client",
    "Code",
    "InferredCodes",
    "InfosinkError",
    "MalformedReplyError",
    "RequestRefusedError",
    "Samples",
    "ServerFailedError",
    "ServerUnreachableError",
    "Violation",
]

_MODULES = {
    "Client": "client",
    "Code": "draws",
    "InferredCodes": "results",
    "InfosinkError": "errors",
    "MalformedReplyError": "errors",
    "RequestRefusedError": "errors",
    "Samples": "results",
    "ServerFailedError": "errors",
    "ServerUnreachableError": "errors",
    "Violation": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
