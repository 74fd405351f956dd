"""The model file by onnxruntime alone: what a server can at best deliver."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from .load import quantiles

LARGEST = 64


class RawSession:
    """A generator with the session options that every server here gives it.

    Args:
        model: The file.
        threads: That share one run.
    """

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        shapes = {value.name: value.shape for value in self._session.get_inputs()}
        self.styles, self.noise_dimensions = shapes["style"][1], shapes["noise"][1]
        random = np.random.default_rng(0)
        self.latents: dict[str, npt.NDArray[np.generic]] = {
            "category": np.arange(LARGEST, dtype=np.int64) % 10,
            "style": random.uniform(-1, 1, (LARGEST, self.styles)).astype(np.float32),
            "noise": random.standard_normal((LARGEST, self.noise_dimensions)).astype(np.float32),
        }
        for rows in (LARGEST, 1):
            self.pixels(slice(rows))

    def pixels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """G's images for some of the latents, [batch, height, width, 1]."""
        feeds = {name: values[rows] for name, values in self.latents.items()}
        pixels: npt.NDArray[np.uint8] = self._session.run(["pixels"], feeds)[0]
        return pixels

    def measured(self, rows: int, seconds: float) -> dict[str, float | None]:
        """Runs of `rows` images, one after another: images a second, and the quantiles of a run's time."""
        times: list[float] = []
        started = time.perf_counter()
        while sum(times) < seconds:
            begun = time.perf_counter()
            self.pixels(slice(rows))
            times.append(time.perf_counter() - begun)
        return {"images_per_second": rows * len(times) / (time.perf_counter() - started), **quantiles(times)}
