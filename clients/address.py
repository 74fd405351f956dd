"""Where the server is."""

import os
import re

DEFAULT_ADDRESS = "127.0.0.1:50051"
ENVIRONMENT_VARIABLE = "INFOSINK_SERVER"

_ADDRESS = re.compile(r"unix:.+|[^\s:]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}")


def default_address() -> str:
    """The address in `INFOSINK_SERVER`, or 127.0.0.1:50051 where that is unset or empty."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_ADDRESS


def checked_address(address: str) -> str:
    """The address itself.

    Raises:
        ValueError: If it is not HOST:PORT, [IPv6]:PORT or unix:PATH. Without a port gRPC would try 443 in silence.
    """
    if not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"{address!r} is not a server's address; give HOST:PORT, such as {DEFAULT_ADDRESS}, or unix:PATH"
        )
    return address
