"""The generator as a model of MLServer, over gRPC.

usage: python mlserver_model.py HOST:PORT

A packed latent is one element of type BYTES, as is an image: tensors of numbers become lists of Python numbers in
MLServer, which is slower. Without a pool of processes, which would cost a hop; a run takes a thread, so that the event
loop stays free.
"""

from __future__ import annotations

import asyncio
import sys

from generator import BATCH, WAIT_SECONDS, Generator
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class DigitGenerator(MLModel):
    """G."""

    async def load(self) -> bool:
        """Opens the file."""
        self.generator = Generator()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The images of a batch, which MLServer merged."""
        (tensor,) = payload.inputs
        images = await asyncio.to_thread(self.generator.pixels, tensor.data.root)
        output = ResponseOutput(name="pixels", shape=[len(images), 1], datatype="BYTES", data=images)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main(host: str, port: int) -> None:
    """Serves until the process is ended; the ports above are for HTTP and metrics, which nothing asks for."""
    settings = Settings(
        debug=False,
        host=host,
        grpc_port=port,
        http_port=0,
        parallel_workers=0,
        metrics_endpoint=None,
        load_models_at_startup=False,
    )
    model = ModelSettings(
        name="generator", implementation=DigitGenerator, max_batch_size=BATCH, max_batch_time=WAIT_SECONDS
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    address, number = sys.argv[1].rsplit(":", 1)
    asyncio.run(main(address, int(number)))
