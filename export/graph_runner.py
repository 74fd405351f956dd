"""A graph as a server runs it: by onnxruntime on the CPU, in batches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from infosink.training.latent import LatentSpace
from onnx import ModelProto
from torch import Tensor

from .errors import ExportError

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
import onnxruntime

BATCH_SIZES = (1, 2, 7, 64)
RUNTIME_VERSION: str = onnxruntime.__version__
_NO_LOGS_BUT_FATAL = 4

Array = npt.NDArray[Any]


def generator_inputs(latents: Tensor, latent_space: LatentSpace) -> dict[str, Array]:
    """What the generator's graph reads for assembled latents."""
    return {
        "category": latent_space.category_of(latents).numpy(),
        "style": latents[:, latent_space.categories : latent_space.informative].numpy(),
        "noise": latents[:, latent_space.informative :].numpy(),
    }


class GraphRunner:
    """A graph in onnxruntime on the CPU.

    Args:
        file: what it is going to be written as, for messages.
        graph: the model.

    Raises:
        ExportError: onnxruntime cannot load it.
    """

    def __init__(self, file: str, graph: ModelProto) -> None:
        self.file = file
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _NO_LOGS_BUT_FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = graph.SerializeToString()
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(
                f"onnxruntime {RUNTIME_VERSION} cannot load {file}: {error}; nothing was written"
            ) from error
        self.names = [output.name for output in self.session.get_outputs()]

    def checked(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name. They are computed at every batch size, and must not depend on it.

        Raises:
            ExportError: a row has other bytes in a batch than alone.
        """
        alone, *batched = (self.run(inputs, size) for size in BATCH_SIZES)
        for size, outputs in zip(BATCH_SIZES[1:], batched, strict=True):
            for name, value in outputs.items():
                if value.tobytes() != alone[name].tobytes():
                    raise ExportError(
                        f"{self.file} gives another {name} in a batch of {size} than for a row alone; "
                        "nothing was written"
                    )
        return alone

    def run(self, inputs: Mapping[str, Array], size: int = BATCH_SIZES[-1]) -> dict[str, Array]:
        """The outputs by name, computed in batches of one size."""
        count = len(next(iter(inputs.values())))
        batches = [
            self.session.run(self.names, {name: value[start : start + size] for name, value in inputs.items()})
            for start in range(0, count, size)
        ]
        return {name: np.concatenate(rows) for name, *rows in zip(self.names, *batches, strict=True)}
