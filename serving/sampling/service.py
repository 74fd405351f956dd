"""infosink.v1.SamplingService over the served models."""

# ruff: noqa: N802  (methods bear the names of the .proto file)

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import numpy as np
from infosink.v1.sampling_service_pb2 import (
    ENCODING_FLOAT32,
    ENCODING_PNG,
    Encoding,
    GetModelRequest,
    GetModelResponse,
    InferCodesRequest,
    InferCodesResponse,
    ListModelsRequest,
    ListModelsResponse,
    PngImages,
    SampleBatch,
    SampleRequest,
    SampleResponse,
    StreamSamplesRequest,
    StreamSamplesResponse,
)
from infosink.v1.sampling_service_pb2_grpc import SamplingServiceServicer

from ..calls import call_record, deadline
from ..calls.codec import beside
from ..calls.status import abort_on_error
from ..errors import UnavailableError
from ..limits import BATCH_SAMPLES
from ..models.draws import NOISE_ALGORITHM
from ..models.registry import Registry
from ..models.served_model import ServedModel
from ..runtime.admission import REPLY_COPIES, Admission
from ..runtime.batching import CHUNKS_AHEAD, BatchedSession
from ..runtime.session import RUNTIME_VERSION, Array
from . import png, tensors
from .inference import Posterior, infer
from .requests import check_draw, check_encoding, check_samples, unary_limit
from .samples import Samples, SamplingPlan, sample, sample_stream

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_FLOAT_BYTES = 4
_PNG_WORK = 64
"""Bytes of a tensor that are copied in the time in which one byte of a picture is compressed."""
_CODE_WORK = 4096
"""Likewise for one code that is checked."""


class SamplingService(SamplingServiceServicer):
    """Answers from models that are loaded and checked.

    Args:
        registry: The models.
        admission: How much is let in at once.
    """

    def __init__(self, registry: Registry, admission: Admission) -> None:
        self._registry = registry
        self._admission = admission

    async def GetModel(self, request: GetModelRequest, context: Context) -> GetModelResponse:
        """One model's description, and its card."""
        async with abort_on_error(context):
            model = self._registry.get(request.model)
            call_record.current().model = model.name
            return GetModelResponse(served_model=model.message(), card=model.description.card)

    async def ListModels(self, request: ListModelsRequest, context: Context) -> ListModelsResponse:
        """Every model's description."""
        del request
        async with abort_on_error(context):
            return ListModelsResponse(served_models=[model.message() for model in self._registry.all()])

    async def Sample(self, request: SampleRequest, context: Context) -> SampleResponse:
        """Draws samples into one message."""
        async with abort_on_error(context):
            deadline.bind(context)
            with self._registry.using(request.model) as model:
                call_record.current().model = model.name
                encoding = check_encoding(request.encoding, model)
                remedy = "use StreamSamples, or split the request"
                plan = await _plan(request, model, unary_limit(encoding, model), remedy)
                size = request.ByteSize() + _sampling_bytes(model, plan.count, encoding)
                with self._admission.unary(model.generator, plan.count, size):
                    parts = await sample(model, plan, _output(encoding))
                    batch = await _batch(model, plan, encoding, parts)
                    return SampleResponse(batch=batch)

    async def StreamSamples(
        self, request: StreamSamplesRequest, context: Context
    ) -> AsyncIterator[StreamSamplesResponse]:
        """Draws samples into messages of at most 64 each, until the client has gone."""
        async with abort_on_error(context):
            deadline.bind(context)
            with self._registry.using(request.model) as model:
                call_record.current().model = model.name
                encoding = check_encoding(request.encoding, model)
                plan = await _plan(request, model, model.limits.stream_samples, "split the request by first_index")
                chunk = min(BATCH_SAMPLES, unary_limit(encoding, model))
                with self._admission.stream(model.generator, plan.count):
                    async with aclosing(sample_stream(model, plan, _output(encoding), chunk)) as drawn:
                        async for part in drawn:
                            yield StreamSamplesResponse(batch=await _batch(model, plan, encoding, [part]))

    async def InferCodes(self, request: InferCodesRequest, context: Context) -> InferCodesResponse:
        """Infers category and style, 64 samples a run."""
        async with abort_on_error(context):
            deadline.bind(context)
            with self._registry.using(request.model) as model:
                call_record.current().model = model.name
                if model.encoder is None:
                    raise UnavailableError(
                        f"{model.name} is served without its encoder, so its codes cannot be inferred",
                        reason="ENCODER_MISSING",
                        field="model",
                    )
                # What is no more than claimed is refused for what it is.
                claimed = len(request.png.images) or math.prod(request.tensor.shape[:1])
                rows = min(claimed, model.limits.inferred_samples)
                size = request.ByteSize() + rows * _posterior_bytes(model)
                with self._admission.unary(model.encoder, rows, size):
                    samples = await beside(_reading_work(request), check_samples, request, model)
                    parts = await infer(model.encoder, samples)
                    return await beside(rows * _posterior_bytes(model), _inferred, model, model.encoder, parts)


async def _plan(
    request: SampleRequest | StreamSamplesRequest, model: ServedModel, limit: int, remedy: str
) -> SamplingPlan:
    draw = request.draw if request.HasField("draw") else None
    return await beside(_CODE_WORK * len(request.draw.codes), check_draw, draw, model, limit, remedy)


def _output(encoding: Encoding) -> str:
    return "sample" if encoding == ENCODING_FLOAT32 else "pixels"


def _sampling_bytes(model: ServedModel, count: int, encoding: Encoding) -> int:
    """About what samples take until the reply is sent: the latents at once, and outputs or the copies of the reply."""
    elements = count * math.prod(model.description.sample_shape)
    latents = min(count, CHUNKS_AHEAD * BATCH_SAMPLES) * (model.style_count + model.noise_dimensions + 4)
    each = REPLY_COPIES * _FLOAT_BYTES if encoding == ENCODING_FLOAT32 else _FLOAT_BYTES + 2
    return _FLOAT_BYTES * latents + elements * each


def _posterior_bytes(model: ServedModel) -> int:
    """About what a sample whose codes are inferred takes beside the request: as read, and its place in the reply."""
    posterior = len(model.labels) + 2 * model.style_count
    return _FLOAT_BYTES * (math.prod(model.description.sample_shape) + REPLY_COPIES * posterior)


def _reading_work(request: InferCodesRequest) -> int:
    return request.ByteSize() * (_PNG_WORK if request.WhichOneof("samples") == "png" else 1)


async def _batch(model: ServedModel, plan: SamplingPlan, encoding: Encoding, parts: Sequence[Samples]) -> SampleBatch:
    """The message for consecutive parts of a plan."""
    work = sum(part.values.nbytes for part in parts) * (_PNG_WORK if encoding == ENCODING_PNG else 1)
    return await beside(work, _encoded, model, plan, encoding, parts)


def _encoded(model: ServedModel, plan: SamplingPlan, encoding: Encoding, parts: Sequence[Samples]) -> SampleBatch:
    categories = [category for part in parts for category in part.category.tolist()]
    batch = SampleBatch(
        model=model.name,
        checkpoint_sha256=model.checkpoint_sha256,
        noise_algorithm=NOISE_ALGORITHM,
        seed=plan.seed,
        first_index=parts[0].first_index,
        categories=categories,
        labels=[model.labels[category] for category in categories],
        style=tensors.to_message(np.concatenate([part.style for part in parts])),
        execution_provider=model.generator.execution_provider,
        runtime_version=RUNTIME_VERSION,
    )
    if plan.shared_index is not None:
        batch.shared_noise_index = plan.shared_index
    elif plan.noise is not None:
        batch.noise_given = True
    values: Array = np.concatenate([part.values for part in parts])
    if encoding == ENCODING_PNG and model.frames is not None:
        batch.png.CopyFrom(PngImages(images=png.encode(model.frames.crop(values))))
    else:
        batch.tensor.CopyFrom(tensors.to_message(values))
    return batch


def _inferred(model: ServedModel, encoder: BatchedSession, parts: Sequence[Posterior]) -> InferCodesResponse:
    probability = np.concatenate([part.category_probability for part in parts])
    categories = probability.argmax(axis=1).tolist()
    return InferCodesResponse(
        model=model.name,
        checkpoint_sha256=model.checkpoint_sha256,
        categories=categories,
        labels=[model.labels[category] for category in categories],
        category_probability=tensors.to_message(probability),
        style_mean=tensors.to_message(np.concatenate([part.style_mean for part in parts])),
        style_std=tensors.to_message(np.concatenate([part.style_std for part in parts])),
        execution_provider=encoder.execution_provider,
        runtime_version=RUNTIME_VERSION,
    )
