"""Who may call: what the settings ask of a connection and of a call, checked together before any model is loaded."""

import ipaddress
from dataclasses import dataclass

import grpc

from ..errors import StartupError
from ..settings import Settings
from .credentials import server_credentials
from .tokens import TokenInterceptor, Tokens


@dataclass(frozen=True)
class Access:
    """What the main port is guarded by."""

    credentials: grpc.ServerCredentials | None
    """TLS; None for a port in the clear."""
    interceptors: tuple[grpc.aio.ServerInterceptor, ...]
    """What asks each call for its token."""
    lack: str | None
    """What strangers need not have, though they reach the port: "authentication"; None where nothing is lacking."""


def access(settings: Settings) -> Access:
    """What the settings ask for.

    Raises:
        StartupError: If a file is not what it should be, or tokens would cross the network in the clear.
    """
    reachable = not is_loopback(settings.host)
    credentials = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        credentials = server_credentials(settings.tls_certificate, settings.tls_key, settings.client_ca)
    if settings.token_file is None:
        interceptors: tuple[grpc.aio.ServerInterceptor, ...] = ()
    elif reachable and credentials is None:
        raise StartupError(
            f"tokens would cross the network in the clear: give --tls-certificate and --tls-key, "
            f"or listen on 127.0.0.1 instead of {settings.host}"
        )
    else:
        interceptors = (TokenInterceptor(Tokens(settings.token_file)),)
    lack = None
    if reachable and credentials is None:
        lack = "authentication or encryption"
    elif reachable and settings.token_file is None and settings.client_ca is None:
        lack = "authentication"
    return Access(credentials, interceptors, lack)


def is_loopback(host: str) -> bool:
    """Whether a server on this interface is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
