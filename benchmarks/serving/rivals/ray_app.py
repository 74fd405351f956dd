"""The generator as an application of Ray Serve, over gRPC.

usage: python ray_app.py HOST:PORT

Latents and images travel as google.protobuf.BytesValue.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import Any

import grpc
import ray
from generator import BATCH, WAIT_SECONDS, Generator
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from ray.serve.config import gRPCOptions

SERVICE = "benchmark.DigitGenerator"


def add_to_server(servicer: Any, server: Any) -> None:
    """What protoc would generate for a service of one method."""
    handlers = {
        "Generate": grpc.unary_unary_rpc_method_handler(
            servicer.Generate,
            request_deserializer=BytesValue.FromString,
            response_serializer=BytesValue.SerializeToString,
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class DigitGenerator:
    """G."""

    def __init__(self) -> None:
        self.generator = Generator()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_SECONDS)
    async def images(self, latents: list[bytes]) -> list[bytes]:
        """The images of a batch, in a thread, so that the event loop stays free."""
        return await asyncio.to_thread(self.generator.pixels, latents)

    async def Generate(self, request: BytesValue) -> BytesValue:  # noqa: N802
        """The image of a latent."""
        return BytesValue(value=await self.images(request.value))


def main(port: int) -> None:
    """Serves until TERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    ray.init(address="local", include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": 0},
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=["ray_app.add_to_server"]),
        logging_config={"enable_access_log": False, "log_level": "ERROR"},
    )
    serve.run(DigitGenerator.bind(), name="generator")
    over.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1].rsplit(":", 1)[1]))
