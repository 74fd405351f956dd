"""Server reflection, in a bounded number of streams that end when the server drains."""

# ruff: noqa: N802  (methods bear the names of the .proto file)

import threading
from collections.abc import Iterator, Sequence

import grpc
from grpc_reflection.v1alpha.reflection import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from .concurrency import ConcurrencyLimit
from .status import abort_on_error


class ReflectionService(ReflectionServicer):  # type: ignore[misc]  # the package is untyped
    """Describes the served services to tools that have no .proto file.

    Args:
        names: The full names of the services.
        streams: How many calls may be open at once; each lasts as long as its client keeps asking.
    """

    def __init__(self, names: Sequence[str], streams: int) -> None:
        super().__init__(names)
        self._limit = ConcurrencyLimit(streams, "reflection streams")
        self._lock = threading.Lock()
        self._open: set[grpc.ServicerContext] = set()
        self._draining = False

    def ServerReflectionInfo(
        self, request_iterator: Iterator[ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[ServerReflectionResponse]:
        """Answers each question in turn."""
        with abort_on_error(context), self._limit:
            with self._lock:
                self._open.add(context)
                draining = self._draining
            try:
                if draining:
                    context.cancel()
                yield from super().ServerReflectionInfo(request_iterator, context)
            finally:
                with self._lock:
                    self._open.discard(context)

    def drain(self) -> None:
        """Cancels the open streams, since each waits for a question that may never come, and later ones."""
        with self._lock:
            self._draining = True
            contexts = list(self._open)
        for context in contexts:
            context.cancel()
