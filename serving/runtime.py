"""onnxruntime: a model file's session, on the device in effect."""

import ctypes
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import StartupError, one_line
from .limits import BATCH_SAMPLES

# Read when the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Device = Literal["auto", "cpu", "cuda"]
Array = np.ndarray[Any, np.dtype[Any]]
GraphSignature = Mapping[str, tuple[str, tuple[int | str | None, ...]]]
"""For each tensor its element type and its shape, the batch dimension first."""

RUNTIME_VERSION: str = onnxruntime.__version__

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_PROVIDER_OPTIONS = {
    # TensorFloat-32 keeps ten bits of the mantissa, which is too few for parity with training.
    _CUDA: {"use_tf32": "0"},
    _CPU: {},
}
_NO_LOGS_BUT_FATAL = 4

_logger = logging.getLogger(__name__)


def cuda_devices() -> int:
    """The number of CUDA devices, by the driver itself; 0 where there is no driver.

    onnxruntime lists its CUDA provider whether or not there is a device, and writes errors to stderr when it is asked
    for in vain.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def execution_providers(device: Device) -> list[str]:
    """The execution providers to ask for, in order of preference.

    Raises:
        StartupError: If `device` is "cuda" and there is no CUDA device, or onnxruntime has no CUDA provider.
    """
    if device == "cpu":
        return [_CPU]
    built_in = _CUDA in onnxruntime.get_available_providers()
    devices = cuda_devices()
    if built_in and devices > 0:
        return [_CUDA, _CPU]
    if device == "cuda":
        reason = "no CUDA device was found" if devices == 0 else "this onnxruntime is built without CUDA"
        remedy = "use --device cpu" if devices == 0 else "install infosink[cuda]"
        raise StartupError(f"--device cuda: {reason}: {remedy}")
    return [_CPU]


class NonFiniteOutputError(Exception):
    """A run of a model gave NaN or infinity."""


class Session:
    """A model file, loaded and ready to run.

    Args:
        content: The file's bytes. Weights kept outside the file are not looked for.
        path: Where it was read, for messages.
        device: Where to run it: "auto" means CUDA where there is a device.
        threads: The threads that share one run on the CPU.

    Raises:
        StartupError: If it is no ONNX file that onnxruntime can load, or `device` is "cuda" and onnxruntime fell back
            to the CPU.
    """

    def __init__(self, content: bytes, path: Path, device: Device, threads: int) -> None:
        requested = execution_providers(device)
        if _CUDA in requested:
            onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Failures arrive as exceptions; an idle server must not keep cores busy.
        options.log_severity_level = _NO_LOGS_BUT_FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                content,
                options,
                providers=[(provider, _PROVIDER_OPTIONS[provider]) for provider in requested],
                # From the CPU to the CPU, it would only write to stdout.
                enable_fallback=_CUDA in requested,
            )
            # Read here, since text that is not UTF-8 shows only now.
            self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
            self.inputs = _signature(self._session.get_inputs())
            self.outputs = _signature(self._session.get_outputs())
        except Exception as error:
            raise StartupError(
                f"{path} is not a model onnxruntime {RUNTIME_VERSION} can load: {one_line(error)}"
            ) from None
        self._session.disable_fallback()
        self.execution_provider: str = self._session.get_providers()[0]
        if requested[0] != self.execution_provider:
            fallback = f"onnxruntime could not use the CUDA device and fell back to {self.execution_provider}"
            if device == "cuda":
                raise StartupError(f"--device cuda: {fallback}: install infosink[cuda], or use --device cpu")
            _logger.warning("%s: install infosink[cuda] to use it, or say --device cpu", fallback)

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU's contract holds: the same bytes for a sample at any batch size and place."""
        return self.execution_provider == _CPU

    def run(self, feeds: Mapping[str, Array], outputs: list[str]) -> list[Array]:
        """Runs the model on a batch of at most 64 rows and returns the named outputs, in order.

        Raises:
            NonFiniteOutputError: If an output holds NaN or infinity.
        """
        rows = len(next(iter(feeds.values())))
        # A GPU picks its kernels by the batch size; at one size a row does not depend on how many it is among.
        fed = dict(feeds) if self.on_cpu else {name: _padded(array) for name, array in feeds.items()}
        results: list[Array] = [array[:rows] for array in self._session.run(outputs, fed)]
        for name, array in zip(outputs, results, strict=True):
            if not np.isfinite(array).all():
                raise NonFiniteOutputError(f"the output {name} holds values that are not finite (NaN or infinity)")
        return results


def _signature(values: Sequence[Any]) -> GraphSignature:
    return {value.name: (value.type, tuple(value.shape)) for value in values}


def _padded(array: Array) -> Array:
    """The rows, and the last one again until there are 64."""
    return np.concatenate([array, np.repeat(array[-1:], BATCH_SAMPLES - len(array), axis=0)])
