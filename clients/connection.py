"""Where the server is, how long to wait for it, and how often to ask."""

import os
import re

DEFAULT_ADDRESS = "127.0.0.1:50051"
ENVIRONMENT_VARIABLE = "INFOSINK_SERVER"
DEFAULT_TIMEOUT = 60.0
LONGEST_TIMEOUT = 86_400.0
DEFAULT_TRIES = 6
"""At most, of one call: together with the pauses between them they bridge a server's restart."""
MOST_TRIES = 100

_HOST_AND_PORT = re.compile(r"(?:[^\s:]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_UNIX = re.compile(r"unix:(?://)?(.+)")
_LARGEST_PORT = 65_535
# What a socket's address holds, less the byte that ends it.
_LONGEST_UNIX_PATH = 107


def default_address() -> str:
    """The address in `INFOSINK_SERVER`, or 127.0.0.1:50051 where that is unset or empty."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_ADDRESS


def checked_address(address: str) -> str:
    """The address itself.

    Raises:
        ValueError: If it is not HOST:PORT, [IPv6]:PORT or unix:PATH. Without a port gRPC would try 443 in silence, and
            it would take a port above 65535 modulo 65536.
    """
    try:
        address.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{address!r} is not UTF-8; give HOST:PORT or unix:PATH") from None
    if path := _UNIX.fullmatch(address):
        length = len(path[1].encode())
        if length > _LONGEST_UNIX_PATH:
            raise ValueError(f"the path of {address!r} has {length} bytes; a socket's has at most {_LONGEST_UNIX_PATH}")
    elif port := _HOST_AND_PORT.fullmatch(address):
        if not 1 <= int(port[1]) <= _LARGEST_PORT:
            raise ValueError(f"{address!r} names the port {port[1]}; it must lie between 1 and {_LARGEST_PORT}")
    else:
        raise ValueError(
            f"{address!r} is not a server's address; give HOST:PORT, such as {DEFAULT_ADDRESS}, or unix:PATH"
        )
    return address


def checked_timeout(seconds: float) -> float:
    """The seconds themselves.

    Raises:
        ValueError: If they are not above 0 and at most a day's.
    """
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise ValueError(f"the timeout is {seconds} s; it must be above 0 and at most {LONGEST_TIMEOUT:g}")
    return seconds


def checked_tries(tries: int) -> int:
    """The number itself.

    Raises:
        ValueError: If it is not between 1 and 100.
    """
    if not 1 <= tries <= MOST_TRIES:
        raise ValueError(f"a call cannot be tried {tries} times; give 1 to {MOST_TRIES}, where 1 is no second try")
    return tries
