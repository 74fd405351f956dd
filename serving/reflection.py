"""Server reflection, in a bounded number of conversations."""

# ruff: noqa: N802  (methods bear the names of the .proto file)

from collections.abc import Iterator, Sequence

import grpc
from grpc_reflection.v1alpha.reflection import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from .answering import Slots, answering


class ReflectionService(ReflectionServicer):  # type: ignore[misc]  # the package is untyped
    """Describes the served services to tools that have no .proto file.

    Args:
        names: The full names of the services.
        conversations: How many calls may be open at once; each lasts as long as its client keeps asking.
    """

    def __init__(self, names: Sequence[str], conversations: int) -> None:
        super().__init__(names)
        self._conversations = Slots(conversations, "reflection calls")

    def ServerReflectionInfo(
        self, request_iterator: Iterator[ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[ServerReflectionResponse]:
        """Answers each question in turn."""
        with answering(context), self._conversations.occupied():
            yield from super().ServerReflectionInfo(request_iterator, context)
