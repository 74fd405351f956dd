"""onnxruntime: a model file's session, on the device in effect."""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import StartupError, one_line
from .cuda import PROVIDER as _CUDA
from .cuda import PaddedRuns, cuda_devices, load_libraries, provider_options
from .quiet_onnxruntime import NO_LOGS_BUT_FATAL, onnxruntime

Device = Literal["auto", "cpu", "cuda"]
Array = np.ndarray[Any, np.dtype[Any]]
GraphSignature = Mapping[str, tuple[str, tuple[int | str | None, ...]]]
"""For each tensor its element type and its shape, the batch dimension first."""

RUNTIME_VERSION: str = onnxruntime.__version__

_CPU = "CPUExecutionProvider"

_logger = logging.getLogger(__name__)


@functools.cache
def _warn(message: str) -> None:
    """Says once what is true of every session."""
    _logger.warning("%s", message)


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


class TerminatedError(Exception):
    """A run was ended by its Termination, before it had its outputs."""


class Termination:
    """The way to end one run of a session from another thread; of no use for a second run.

    What is said here decides what happened to a run that failed: onnxruntime has no type of error for it, and the words
    of its message may change.
    """

    def __init__(self) -> None:
        self.requested = False
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = NO_LOGS_BUT_FATAL

    def terminate(self) -> None:
        """Has the run end at its next operator, if it has not ended; one that has not begun ends at its first."""
        self.requested = True
        self.options.terminate = True


def finite_rows(arrays: Iterable[Array]) -> Array:
    """Which rows are finite in each of `arrays`, which are of the same rows: bool [rows]."""
    finite = [np.isfinite(array).all(axis=tuple(range(1, array.ndim))) for array in arrays]
    rows: Array = np.logical_and.reduce(finite)
    return rows


def require_finite(outputs: Mapping[str, Array]) -> None:
    """Makes sure that every row of the named outputs is finite.

    Raises:
        NonFiniteOutputError: If one is not.
    """
    for name, array in outputs.items():
        if not finite_rows([array]).all():
            raise NonFiniteOutputError(f"the output {name} holds values that are not finite (NaN or infinity)")


class Session:
    """A model file, loaded and ready to run.

    Args:
        content: The file's bytes. Weights kept outside the file are not looked for.
        path: Where it was read, for messages.
        device: Where to run it: "auto" means CUDA where there is a device.
        threads: The threads that share one run on the CPU.
        cuda_graphs: Whether a CUDA device may replay captured graphs, if they give what the model gives without them.

    Raises:
        StartupError: If it is no ONNX file that onnxruntime can load, or `device` is "cuda" and onnxruntime cannot use
            the device.
    """

    def __init__(self, content: bytes, path: Path, device: Device, threads: int, *, cuda_graphs: bool = False) -> None:
        on_cuda = _CUDA in execution_providers(device)
        missing = load_libraries() if on_cuda else []
        attempts: list[tuple[str, dict[str, str]]] = [(_CPU, {})]
        if on_cuda:
            choices = (True, False) if cuda_graphs else (False,)
            attempts = [(_CUDA, provider_options(graphs=graphs)) for graphs in choices] + attempts
        options = _session_options(threads)
        failures: list[str] = []
        for attempt in attempts:
            try:
                self._session = _open(content, options, *attempt)
                # Read here, since text that is not UTF-8 shows only now.
                self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
                self.inputs = _signature(self._session.get_inputs())
                self.outputs = _signature(self._session.get_outputs())
                break
            except Exception as error:
                failures.append(one_line(error))
        else:
            raise StartupError(f"{path} is not a model onnxruntime {RUNTIME_VERSION} can load: {failures[-1]}")
        self.execution_provider: str = self._session.get_providers()[0]
        if on_cuda and self.on_cpu:
            unusable = f"onnxruntime could not use the CUDA device: {'; '.join(missing) or failures[-1]}"
            if device == "cuda":
                raise StartupError(f"--device cuda: {unusable}: install infosink[cuda], or use --device cpu")
            _warn(f"{unusable}; the CPU serves: install infosink[cuda] to use the device, or say --device cpu")
        elif failures:
            _warn(f"CUDA graphs are not used: {failures[0]}")
        self._padded = None if self.on_cpu else PaddedRuns(self._session, "cuda", graphs=cuda_graphs and not failures)

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU's contract holds: the same bytes for a sample at any batch size and place."""
        return self.execution_provider == _CPU

    def settle(self, feeds: Mapping[str, Array]) -> None:
        """On a CUDA device, warms every batch size that runs will have, see PaddedRuns.settle; nothing on the CPU.

        Args:
            feeds: 64 rows of every input.
        """
        if self._padded is not None:
            self._padded.settle(feeds)

    def run(
        self, feeds: Mapping[str, Array], outputs: list[str], termination: Termination | None = None
    ) -> list[Array]:
        """Runs the model on a batch of at most 64 rows and returns the named outputs, in order, finite or not.

        Raises:
            TerminatedError: If `termination` ended it.
        """
        termination = termination or Termination()
        try:
            if self._padded is not None:
                return self._padded.run(feeds, outputs, termination.options)
            return list(self._session.run(outputs, dict(feeds), termination.options))
        except Exception as error:
            if termination.requested:
                raise TerminatedError("the run was ended before it had its outputs") from error
            raise


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = NO_LOGS_BUT_FATAL
    # One operator runs at a time, on the threads of one pool.
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads
    # An idle server must not keep cores busy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    return options


def _open(content: bytes, options: Any, provider: str, configuration: dict[str, str]) -> Any:
    """A session on `provider`.

    Raises:
        Exception: If it cannot be made, or onnxruntime left the provider out, which it does without a word.
    """
    # onnxruntime's own fallback would write to stdout, and would change the provider of a session that serves.
    session = onnxruntime.InferenceSession(
        content, options, providers=[(provider, configuration)], enable_fallback=False
    )
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"onnxruntime left {provider} out")
    return session


def _signature(values: Sequence[Any]) -> GraphSignature:
    return {value.name: (value.type, tuple(value.shape)) for value in values}
