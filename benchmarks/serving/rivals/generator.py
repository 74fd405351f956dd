"""The model file by onnxruntime, as each of the other servers runs it; the file and the threads stand in variables."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnxruntime

BATCH = 64
"""Images in one run at most, as in our server."""
WAIT_SECONDS = float(os.environ["WAIT_SECONDS"])
"""What the server's batching is told about waiting: of several values, the one that serves most is taken."""


class Generator:
    """G by the file $GENERATOR_MODEL, on $GENERATOR_THREADS threads, from latents packed as bytes.

    A packed latent is the category as int64, the style and the noise as float32, little-endian.
    """

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["GENERATOR_THREADS"])
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = os.environ["GENERATOR_MODEL"]
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        shapes = {value.name: value.shape for value in self.session.get_inputs()}
        self.styles, self.noise_dimensions = shapes["style"][1], shapes["noise"][1]
        self._latent = np.dtype(
            [("category", "<i8"), ("style", "<f4", self.styles), ("noise", "<f4", self.noise_dimensions)]
        )
        for rows in (BATCH, 1):
            self.pixels([bytes(self._latent.itemsize)] * rows)

    def pixels(self, latents: Sequence[bytes]) -> list[bytes]:
        """The image of each latent, uint8 [height, width, 1]."""
        rows = np.frombuffer(b"".join(latents), self._latent)
        feeds = {name: np.ascontiguousarray(rows[name]) for name in ("category", "style", "noise")}
        return [image.tobytes() for image in self.session.run(["pixels"], feeds)[0]]
