"""onnxruntime on a CUDA device: what it needs to be found, and runs in buffers that stay on the device."""

import contextlib
import ctypes
import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..errors import one_line
from ..limits import BATCH_SAMPLES
from .quiet_onnxruntime import NO_LOGS_BUT_FATAL, onnxruntime

PROVIDER = "CUDAExecutionProvider"
PADDED_SIZES = (1, 2, 4, 8, 16, 32, BATCH_SAMPLES)
"""The batch sizes that runs are padded to, as far as they give a row the same bytes."""

Array = np.ndarray[Any, np.dtype[Any]]

_ARENA_BYTES = 4 << 30
"""The device memory a session may take for itself. All of it is taken at start-up: no size is run later that was not
run then."""
_ELEMENT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
_NO_GRAPH = -1
"""The id of a run that captures and replays none."""

_logger = logging.getLogger(__name__)


def cuda_devices() -> int:
    """The number of CUDA devices, by the driver itself; 0 where there is no driver.

    onnxruntime lists its CUDA provider whether or not there is a device.
    """
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA version, major and minor, that the driver can run; None where there is no driver."""
    driver, version = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def load_libraries() -> list[str]:
    """Loads the CUDA libraries that onnxruntime was built for, from the packages that bring them or the system.

    Returns:
        What could not be loaded, a line each: onnxruntime would print them among what a command says.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    return [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]


def library_names(major: int) -> list[str]:
    """The shared libraries, beside the driver's, that onnxruntime loads on Linux where it is built for CUDA `major`."""
    return [
        f"libcudart.so.{major}",
        f"libcublas.so.{major}",
        f"libcublasLt.so.{major}",
        "libcurand.so.10",
        "libcudnn.so.9",
    ]


def provider_options(*, graphs: bool) -> dict[str, str]:
    """How the CUDA provider is to run a session, its work captured as CUDA graphs or not."""
    return {
        # TensorFloat-32 keeps ten bits of the mantissa, which is too few for parity with training.
        "use_tf32": "0",
        # To time every algorithm would take seconds at start-up, and could choose another at the next.
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": str(_ARENA_BYTES),
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1" if graphs else "0",
    }


class PaddedRuns:
    """Runs of a session in buffers on the device, one set for each padded size.

    A device picks its kernels by the batch size, so that a row's last bits may depend on how many it is among. Until
    `settle` has found out which sizes agree, every run is padded to 64 rows.

    All runs happen in one thread, in turn: the buffers are shared, and onnxruntime keeps a captured graph for the
    thread that captured it.

    Args:
        session: An onnxruntime.InferenceSession.
        device: Where its tensors live, by onnxruntime's name.
        graphs: Whether to replay captured CUDA graphs, which the session must be made for.
    """

    def __init__(self, session: Any, device: str, *, graphs: bool) -> None:
        self.sizes: tuple[int, ...] = (BATCH_SAMPLES,)
        self.graphs = False
        self._wanted_graphs = graphs
        self._session = session
        self._device = device
        self._buffers: dict[int, _Buffers] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuda")

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], options: Any) -> list[Array]:
        """The named outputs for at most 64 rows, in order.

        Args:
            feeds: Every input of the model.
            outputs: The names of outputs.
            options: An onnxruntime.RunOptions for this run alone.
        """
        rows = len(next(iter(feeds.values())))
        size = min(size for size in self.sizes if size >= rows)
        return self._thread.submit(self._run, size, feeds, outputs, options, replayed=self.graphs).result()

    def settle(self, feeds: Mapping[str, Array]) -> None:
        """Runs every size, so that a later run finds its kernels and its memory, and decides what runs may use.

        A size is used if it gives each row the bytes that it has among 64; graphs are replayed if they give what the
        session gives without them.

        Args:
            feeds: 64 rows of every input.
        """
        outputs = [value.name for value in self._session.get_outputs()]
        turned = {name: np.roll(array, 1, axis=0) for name, array in feeds.items()}
        expected = [(given, self._in_batches_of(BATCH_SAMPLES, given, outputs)) for given in (feeds, turned)]
        (_, whole), (_, whole_turned) = expected
        if not _same(whole_turned, [np.roll(array, 1, axis=0) for array in whole]):
            _logger.warning(
                "on this device a sample's bytes depend on its place in a batch: use --device cpu to repeat it"
            )
        agreeing = [size for size in PADDED_SIZES if _same(whole, self._in_batches_of(size, feeds, outputs))]
        self.sizes = (*(size for size in agreeing if size < BATCH_SAMPLES), BATCH_SAMPLES)
        self._buffers = {size: self._buffers[size] for size in self.sizes}
        if self._wanted_graphs:
            self.graphs = self._graphs_agree(expected, outputs)

    def _graphs_agree(
        self, expected: Sequence[tuple[Mapping[str, Array], Sequence[Array]]], outputs: Sequence[str]
    ) -> bool:
        try:
            # The first run of a size captures, the others replay: a graph that had kept its first rows would show.
            agree = all(
                _same(whole, self._in_batches_of(size, feeds, outputs, replayed=True))
                for size in self.sizes
                for feeds, whole in expected
            )
            failure = "they give other bytes than the same model without them"
        except Exception as error:
            agree, failure = False, one_line(error)
        if not agree:
            _logger.warning("CUDA graphs are not used: %s", failure)
        return agree

    def _in_batches_of(
        self, size: int, feeds: Mapping[str, Array], outputs: Sequence[str], *, replayed: bool = False
    ) -> list[Array]:
        def batches() -> Iterator[list[Array]]:
            for start in range(0, BATCH_SAMPLES, size):
                rows = {name: array[start : start + size] for name, array in feeds.items()}
                options = onnxruntime.RunOptions()
                options.log_severity_level = NO_LOGS_BUT_FATAL
                yield self._thread.submit(self._run, size, rows, outputs, options, replayed=replayed).result()

        return [np.concatenate(arrays) for arrays in zip(*batches(), strict=True)]

    def _run(
        self, size: int, feeds: Mapping[str, Array], outputs: Sequence[str], options: Any, *, replayed: bool
    ) -> list[Array]:
        if size not in self._buffers:
            self._buffers[size] = _Buffers(self._session, self._device, size)
        options.add_run_config_entry("gpu_graph_id", str(size if replayed else _NO_GRAPH))
        return self._buffers[size].run(feeds, outputs, options)


class _Buffers:
    """The inputs and outputs of one batch size: bound once, at addresses that a captured graph may hold."""

    def __init__(self, session: Any, device: str, size: int) -> None:
        self._session, self._size = session, size
        self._binding = session.io_binding()
        self._inputs = {value.name: _on_device(value, device, size) for value in session.get_inputs()}
        self._outputs = {value.name: _on_device(value, device, size) for value in session.get_outputs()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], options: Any) -> list[Array]:
        rows = len(next(iter(feeds.values())))
        for name, value in self._inputs.items():
            if feeds[name].size:
                value.update_inplace(_padded(feeds[name], self._size))
        self._session.run_with_iobinding(self._binding, options)
        # Copied, since the next run writes where this one did.
        return [np.array(self._outputs[name].numpy()[:rows]) for name in outputs]


def _on_device(value: Any, device: str, size: int) -> Any:
    shape = [size, *value.shape[1:]]
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, _ELEMENT_TYPES[value.type], device, 0)


def _padded(array: Array, size: int) -> Array:
    """The rows, and the last one again until there are `size`."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _same(arrays: Sequence[Array], others: Sequence[Array]) -> bool:
    return all(array.tobytes() == other.tobytes() for array, other in zip(arrays, others, strict=True))
