"""The generator as an API of LitServe, over HTTP.

usage: python litserve_api.py HOST:PORT

Requests are JSON, replies are bytes.
"""

from __future__ import annotations

import base64
import os
import sys

import litserve
from fastapi import Response
from generator import BATCH, WAIT_SECONDS, Generator


class DigitGenerator(litserve.LitAPI):
    """G."""

    def setup(self, device: str) -> None:
        """Opens the file."""
        del device
        self.generator = Generator()

    def decode_request(self, request):
        """The packed latent."""
        return base64.b64decode(request["latent"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """The latents, as they are."""
        return inputs

    def predict(self, latents: list[bytes]) -> list[bytes]:
        """The images of a batch."""
        return self.generator.pixels(latents)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """The images, as they are."""
        return output

    def encode_response(self, output):
        """The image's bytes."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    address, number = sys.argv[1].rsplit(":", 1)
    api = DigitGenerator(max_batch_size=BATCH, batch_timeout=WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue="FAST_QUEUE" in os.environ)
    server.run(host=address, port=int(number), num_api_servers=1, generate_client_file=False, log_level="error")
