"""infosink.v1.SamplingService over the served models."""

# ruff: noqa: N802  (methods bear the names of the .proto file)

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

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

from . import png, tensors
from .concurrency import ConcurrencyLimit
from .draws import NOISE_ALGORITHM
from .errors import AbandonedError, UnavailableError, UnknownModelError, listed, quoted
from .inference import infer
from .limits import BATCH_SAMPLES
from .requests import check_draw, check_encoding, check_samples, unary_limit
from .runtime import RUNTIME_VERSION, Array
from .sampling import Samples, SamplingPlan, sample
from .served_model import ServedModel
from .status import abort_on_error

T = TypeVar("T")


def _awaited(parts: Iterable[T], context: grpc.ServicerContext) -> Iterator[T]:
    """The parts, as long as the client awaits them: the next one is not made once it has gone."""
    for part in parts:
        if not context.is_active():
            raise AbandonedError("the client has gone")
        yield part


class SamplingService(SamplingServiceServicer):
    """Answers from models that are loaded and checked.

    Args:
        models: The models, each under a name of its own; the first answers where a request names none.
        streams: How many StreamSamples calls may be open at once; a slow reader occupies one as long as it reads.
        unary_calls: How many Sample and InferCodes calls, together, may be open at once.
    """

    def __init__(self, models: Sequence[ServedModel], streams: int, unary_calls: int) -> None:
        self._models = {model.name: model for model in models}
        self._default = models[0]
        self._streams = ConcurrencyLimit(streams, "StreamSamples calls")
        self._unary_calls = ConcurrencyLimit(unary_calls, "Sample and InferCodes calls")

    def GetModel(self, request: GetModelRequest, context: grpc.ServicerContext) -> GetModelResponse:
        """One model's description, and its card."""
        with abort_on_error(context):
            model = self._model(request.model)
            return GetModelResponse(served_model=model.message(), card=model.description.card)

    def ListModels(self, request: ListModelsRequest, context: grpc.ServicerContext) -> ListModelsResponse:
        """Every model's description."""
        del request
        with abort_on_error(context):
            return ListModelsResponse(served_models=[model.message() for model in self._models.values()])

    def Sample(self, request: SampleRequest, context: grpc.ServicerContext) -> SampleResponse:
        """Draws samples into one message."""
        with abort_on_error(context), self._unary_calls:
            model = self._model(request.model)
            encoding = check_encoding(request.encoding, model)
            draw = request.draw if request.HasField("draw") else None
            plan = check_draw(draw, model, unary_limit(encoding, model), "use StreamSamples, or split the request")
            parts = list(_awaited(sample(model, plan, _output(encoding)), context))
            return SampleResponse(batch=_batch(model, plan, encoding, parts))

    def StreamSamples(
        self, request: StreamSamplesRequest, context: grpc.ServicerContext
    ) -> Iterator[StreamSamplesResponse]:
        """Draws samples into messages of at most 64 each, until the client has gone."""
        with abort_on_error(context), self._streams:
            model = self._model(request.model)
            encoding = check_encoding(request.encoding, model)
            draw = request.draw if request.HasField("draw") else None
            plan = check_draw(draw, model, model.limits.stream_samples, "split the request by first_index")
            size = min(BATCH_SAMPLES, unary_limit(encoding, model))
            for part in _awaited(sample(model, plan, _output(encoding), size), context):
                yield StreamSamplesResponse(batch=_batch(model, plan, encoding, [part]))

    def InferCodes(self, request: InferCodesRequest, context: grpc.ServicerContext) -> InferCodesResponse:
        """Infers category and style, 64 samples a run."""
        with abort_on_error(context), self._unary_calls:
            model = self._model(request.model)
            if model.encoder is None:
                raise UnavailableError(f"{model.name} is served without its encoder, so its codes cannot be inferred")
            parts = list(_awaited(infer(model.encoder, check_samples(request, model)), context))
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
                execution_provider=model.encoder.execution_provider,
                runtime_version=RUNTIME_VERSION,
            )

    def _model(self, name: str) -> ServedModel:
        if not name:
            return self._default
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(f"no model is named {quoted(name)}: those served are {listed(list(self._models))}")
        return model


def _output(encoding: Encoding) -> str:
    return "sample" if encoding == ENCODING_FLOAT32 else "pixels"


def _batch(model: ServedModel, plan: SamplingPlan, encoding: Encoding, parts: Sequence[Samples]) -> SampleBatch:
    """The message for consecutive parts of a plan."""
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
