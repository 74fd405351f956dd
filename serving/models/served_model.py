"""A model as the server runs it: a generator, perhaps its encoder, and their description."""

import asyncio
import ctypes
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from infosink.v1.model_pb2 import Model
from infosink.v1.sampling_service_pb2 import Limits
from infosink.v1.sampling_service_pb2 import ServedModel as ServedModelMessage

from ..errors import StartupError, one_line
from ..limits import BATCH_SAMPLES
from ..runtime.batching import BatchedSession, QueueBounds
from ..runtime.session import RUNTIME_VERSION, Array, Device, GraphSignature, Session, require_finite
from .content_digest import verified_sha256
from .draws import draw
from .frames import Frames
from .message_limits import message_limits
from .model_file import Description, Role, Signature, describe, read_model_file
from .model_sources import find_encoder

_CHECKED_BATCH_SIZES = (1, 3, 17)
_TIMED_RUNS = 3


@dataclass(frozen=True)
class ServedModel:
    """A checked model, ready to answer."""

    name: str
    description: Description
    generator: BatchedSession
    encoder: BatchedSession | None
    limits: Limits
    file_sha256: tuple[str, ...] = ()
    """Of the generator's file, and of the encoder's where there is one."""

    @property
    def encoder_name(self) -> str:
        """What clients call the encoder that ask for either model by name."""
        return f"{self.name}-encoder"

    @cached_property
    def frames(self) -> Frames | None:
        """The images' frames; None where samples are points."""
        space = self.description.sample_space
        return Frames(space.image) if space.HasField("image") else None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label of each category."""
        return tuple(category.label for category in self.description.latent_space.categories)

    @cached_property
    def categories_by_label(self) -> Mapping[str, tuple[int, ...]]:
        """For each label, in order of its first category, the categories that bear it, ascending.

        A category without a label is left out: only its index selects it.
        """
        return {
            label: tuple(k for k, other in enumerate(self.labels) if other == label)
            for label in dict.fromkeys(self.labels)
            if label
        }

    @cached_property
    def style_count(self) -> int:
        """S, the number of style codes."""
        return len(self.description.latent_space.styles)

    @cached_property
    def noise_dimensions(self) -> int:
        """N, the dimension of the noise."""
        return self.description.latent_space.noise_dimensions

    @cached_property
    def checkpoint_sha256(self) -> str:
        """The checkpoint the files were exported from."""
        return self.description.model.checkpoint_sha256

    def message(self) -> ServedModelMessage:
        """The model as GetModel states it, under the name it is served by."""
        model = Model()
        model.CopyFrom(self.description.model)
        model.name = self.name
        return ServedModelMessage(
            model=model,
            infers_codes=self.encoder is not None,
            execution_provider=self.generator.execution_provider,
            runtime_version=RUNTIME_VERSION,
            limits=self.limits,
        )

    def generate(
        self,
        category: npt.NDArray[np.int64],
        style: npt.NDArray[np.float32],
        noise: npt.NDArray[np.float32],
        output: str,
    ) -> "asyncio.Future[list[Array]]":
        """Starts G(z) for at most 64 latents; the first array will be the output "sample" or "pixels"."""
        # Pixels do not show whether the sample that they were made from is finite.
        outputs = list(dict.fromkeys([output, "sample"]))
        return self.generator.start({"category": category, "style": style, "noise": noise}, outputs)

    def close(self) -> None:
        """Ends the threads, once what was started has been computed, and frees the sessions; not to be used again."""
        for session in (self.generator, self.encoder):
            if session is not None:
                session.close()
        _return_freed_memory()


def load_model(
    path: Path,
    *,
    name: str | None,
    encoder_path: Path | None,
    device: Device,
    threads: int,
    stream_samples: int,
    cuda_graphs: bool = False,
    queue: QueueBounds | None = None,
) -> ServedModel:
    """Loads, checks and warms a generator and its encoder.

    Args:
        path: The generator's file.
        name: What to serve it as; the name in its metadata where None.
        encoder_path: The encoder's file; the one beside the generator where None, if there is one.
        device: Where to run it.
        threads: The threads that share one run on the CPU.
        stream_samples: The limit of one StreamSamples call.
        cuda_graphs: Whether a CUDA device may replay captured graphs.
        queue: What may wait for each of the two, and how long for company; the defaults where None.

    Raises:
        StartupError: If a file is unreadable, damaged, not infosink's, of the wrong role, inconsistent with its own
            description or with the other file, or gives other bytes for a sample at another batch size on the CPU.
    """
    encoder_path = encoder_path or find_encoder(path)
    # onnxruntime does not hold the interpreter, so that the two files take little longer than one.
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(_load, encoder_path, "encoder", device, threads, cuda_graphs) if encoder_path else None
        generator = _load(path, "generator", device, threads, cuda_graphs)
        limits = message_limits(generator.description, stream_samples)
        if limits.unary_float32_samples == 0 or limits.inferred_samples == 0:
            shape = list(generator.description.sample_shape)
            raise StartupError(f"{path} makes samples of shape {shape}: one does not fit in 4 MiB")
        latents = _prior_batch(generator.description)
        outputs = _run(generator, latents)
        generator.session.settle(latents)
        checking = beside.submit(_check_batch_invariance, generator, latents, outputs)
        encoder = loading.result() if loading else None
        if encoder:
            _check_pair(generator, encoder)
            samples = {"sample": outputs["sample"]}
            inferred = _run(encoder, samples)
            encoder.session.settle(samples)
            _check_batch_invariance(encoder, samples, inferred)
        checking.result()
    files = [generator, encoder] if encoder else [generator]
    feeds = [latents, {"sample": outputs["sample"]}]
    # One after the other: the pace of each is measured while nothing else runs.
    sessions = [_batched(file, fed, queue or QueueBounds()) for file, fed in zip(files, feeds, strict=False)]
    description = generator.description
    _return_freed_memory()
    return ServedModel(
        name or description.model.name,
        description,
        sessions[0],
        sessions[1] if encoder else None,
        limits,
        tuple(file.sha256 for file in files),
    )


@dataclass(frozen=True)
class _File:
    """A model file that was loaded, and what it says of itself."""

    path: Path
    sha256: str
    session: Session
    description: Description


def _load(path: Path, role: Role, device: Device, threads: int, cuda_graphs: bool) -> _File:
    content = read_model_file(path)
    file_sha256 = verified_sha256(content, path)
    session = Session(content, path, device, threads, cuda_graphs=cuda_graphs)
    description = describe(session.metadata, path)
    if description.role != role:
        option = "--model" if description.role == "generator" else "--encoder"
        raise StartupError(f"{path} is the {description.role} of a model, not its {role}: pass it with {option}")
    _check_signature("input", description.inputs, session.inputs, path)
    if unknown := session.inputs.keys() - description.inputs.keys():
        raise StartupError(f"{path} has the unknown input {min(unknown)}: export it again")
    _check_signature("output", description.outputs, session.outputs, path)
    return _File(path, file_sha256, session, description)


def _batched(file: _File, feeds: dict[str, Array], queue: QueueBounds) -> BatchedSession:
    """The session for many callers, with the pace that runs of 64 rows show."""
    pace = 0.0
    for _ in range(_TIMED_RUNS):
        started = time.monotonic()
        _run(file, feeds)
        pace = max(pace, BATCH_SAMPLES / (time.monotonic() - started))
    return BatchedSession(file.session, file.description.role, queue, rows_per_second=pace)


def _check_signature(direction: str, expected: Signature, actual: GraphSignature, path: Path) -> None:
    for name, (element_type, shape) in expected.items():
        if name not in actual:
            raise StartupError(f"{path} lacks the {direction} {name}: export it again")
        actual_type, actual_shape = actual[name]
        batch_is_fixed = bool(actual_shape) and isinstance(actual_shape[0], int)
        if actual_type != element_type or actual_shape[1:] != shape or not actual_shape or batch_is_fixed:
            raise StartupError(
                f"{path} has the {direction} {name} as {actual_type} {list(actual_shape)}, but by its metadata it must "
                f"be {element_type} {['batch', *shape]}: export it again"
            )


def _check_pair(generator: _File, encoder: _File) -> None:
    ours, theirs = generator.description, encoder.description
    if ours.model.checkpoint_sha256 != theirs.model.checkpoint_sha256:
        raise StartupError(
            f"{encoder.path} is of another checkpoint ({theirs.model.checkpoint_sha256[:12]}…) than {generator.path} "
            f"({ours.model.checkpoint_sha256[:12]}…): export both from one run"
        )
    # Labels may be named again without another checkpoint, sizes may not.
    if (ours.sample_space, len(ours.latent_space.categories), len(ours.latent_space.styles)) != (
        theirs.sample_space,
        len(theirs.latent_space.categories),
        len(theirs.latent_space.styles),
    ):
        raise StartupError(
            f"{encoder.path} does not describe the same spaces as {generator.path}: export both from one run"
        )


def _prior_batch(description: Description) -> dict[str, Array]:
    """What a generator reads for 64 samples."""
    latents = description.latent_space
    draws = draw(0, 0, BATCH_SAMPLES, styles=len(latents.styles), noise_dimensions=latents.noise_dimensions)
    category = np.arange(BATCH_SAMPLES, dtype=np.int64) % len(latents.categories)
    return {"category": category, "style": draws.style, "noise": draws.noise}


def _check_batch_invariance(file: _File, feeds: dict[str, Array], whole: dict[str, Array]) -> None:
    """On the CPU, compares the outputs for the 64 rows of `feeds` with those of smaller batches, byte for byte."""
    for size in _CHECKED_BATCH_SIZES if file.session.on_cpu else ():
        for rows in _slices(size):
            part = _run(file, {name: array[rows] for name, array in feeds.items()})
            if any(array.tobytes() != whole[name][rows].tobytes() for name, array in part.items()):
                raise StartupError(
                    f"{file.path} gives other bytes for a sample in a batch of {size} than of {BATCH_SAMPLES}, so "
                    "samples could not be drawn again: export it again, with constant weights and no dynamic "
                    "quantisation"
                )


def _run(file: _File, feeds: dict[str, Array]) -> dict[str, Array]:
    names = list(file.description.outputs)
    try:
        outputs = dict(zip(names, file.session.run(feeds, names), strict=True))
        require_finite(outputs)
    except Exception as error:
        raise StartupError(f"{file.path} cannot be run: {one_line(error)}: train or export it again") from None
    return outputs


def _return_freed_memory() -> None:
    """Gives the system back what was freed: glibc keeps it, after some loads many times what a model takes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _slices(size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, BATCH_SAMPLES, size))
