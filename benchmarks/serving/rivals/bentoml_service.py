"""The generator as a service of BentoML, over HTTP: `bentoml serve bentoml_service:DigitGenerator`.

Its batching takes lists, which travel as JSON; base64 is the cheapest way to have bytes in them.
"""

from __future__ import annotations

import base64

import bentoml
from generator import BATCH, WAIT_SECONDS, Generator


@bentoml.service(
    workers=1,
    threads=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60, "max_concurrency": 1024},
)
class DigitGenerator:
    """G."""

    def __init__(self) -> None:
        self.generator = Generator()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=round(1000 * WAIT_SECONDS))
    def generate(self, latents: list[str]) -> list[str]:
        """The image of each latent."""
        images = self.generator.pixels([base64.b64decode(latent) for latent in latents])
        return [base64.b64encode(image).decode() for image in images]
