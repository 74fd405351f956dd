"""Bearer tokens: who may call, by a file that is read anew when it changes."""

import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from ..calls.status import abort_on_error
from ..errors import StartupError, UnauthenticatedError
from .secret_files import read_secret, warn_of_readers

SHORTEST_TOKEN = 16
LONGEST_TOKEN = 1024
"""So that an authorization fits the 8 KiB that gRPC leaves to a call's metadata."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750's b64token."""
_REMEDY = "write one token a line, such as python -c 'import secrets; print(secrets.token_urlsafe(32))' makes"
_NONE_GIVEN = (
    "this server asks for a token: send the metadata authorization: Bearer TOKEN, "
    "which infosink does with --token-file FILE or INFOSINK_TOKEN_FILE"
)
_NOT_ACCEPTED = "the token is none of this server's, or no longer: ask its operator for one"
_logger = logging.getLogger(__name__)


class Tokens:
    """The tokens in a file: one a line, of 16 to 1024 of A-Z a-z 0-9 . _ ~ + / - and = at the end; # begins a comment.

    A change of the file counts from the next call on; where what it holds then is no list of tokens, those read before
    stay, and the log says so. No token is kept or logged, only their SHA-256.

    Args:
        path: The file.

    Raises:
        StartupError: If the file cannot be read, or is no list of tokens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._current_version()
        self._digests = self._read()

    def accepts(self, token: str) -> bool:
        """Whether the token is one of the file's; how long it takes does not depend on which, or how nearly."""
        self._heed_changes()
        digest = _digest(token)
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(known, digest)
        return accepted

    def _heed_changes(self) -> None:
        version = self._current_version()
        if version == self._version:
            return
        self._version = version
        try:
            self._digests = self._read()
        except StartupError as error:
            _logger.error("%s; the tokens read before still count", error)  # noqa: TRY400
        else:
            count = len(self._digests)
            _logger.info("%s was read anew: %d %s from now on", self._path, count, "counts" if count == 1 else "count")

    def _current_version(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _read(self) -> list[bytes]:
        contents = read_secret(self._path, "--token-file")
        # Bytes that are no ASCII become what no token holds.
        lines = contents.decode("ascii", "replace").splitlines()
        tokens = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, start=1)]
        digests = [self._checked(number, token) for number, token in tokens if token]
        if not digests:
            raise StartupError(f"{self._path} holds no token: {_REMEDY}")
        warn_of_readers(self._path)
        return digests

    def _checked(self, number: int, token: str) -> bytes:
        """The token's digest; messages name its line and never its letters."""
        if not _TOKEN.fullmatch(token):
            raise StartupError(f"line {number} of {self._path} is no token of A-Z a-z 0-9 . _ ~ + / - and =: {_REMEDY}")
        if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
            raise StartupError(
                f"the token in line {number} of {self._path} has {len(token)} characters, "
                f"not {SHORTEST_TOKEN} to {LONGEST_TOKEN}: {_REMEDY}"
            )
        return _digest(token)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Answers calls without an accepted token with UNAUTHENTICATED, whatever the method, before their request is read.

    Args:
        tokens: Those that are accepted.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The method's handler, or one that refuses; None for a method that does not exist."""
        refusal = self._refusal(handler_call_details.invocation_metadata)
        return await continuation(handler_call_details) if refusal is None else _refusing(refusal)

    def _refusal(self, metadata: Iterable[tuple[str, str | bytes]]) -> UnauthenticatedError | None:
        given = [value for key, value in metadata if key == "authorization"]
        scheme, _, token = str(given[0]).partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            return UnauthenticatedError(_NONE_GIVEN, reason="TOKEN_MISSING")
        if not self._tokens.accepts(token.strip()):
            return UnauthenticatedError(_NOT_ACCEPTED, reason="TOKEN_WRONG")
        return None


def _refusing(refusal: UnauthenticatedError) -> "grpc.RpcMethodHandler[Any, Any]":
    async def refuse(_requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        async with abort_on_error(context):
            raise refusal

    # Of streams, whatever the method is: a single request would be received, and held, before its handler is called.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
