"""inference.GRPCInferenceService, the Open Inference Protocol version 2, over the served models.

The protocol has no stream of samples: what one reply does not hold is asked for in several requests, by first_index.
"""

# ruff: noqa: N802, ARG002  (methods have the names and the parameters that gRPC calls them by)

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from infosink.oip.open_inference_service_pb2 import (
    DESCRIPTOR,
    InferParameter,
    ModelConfigRequest,
    ModelConfigResponse,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from infosink.oip.open_inference_service_pb2_grpc import GRPCInferenceServiceServicer
from infosink.v1.sampling_service_pb2 import InferCodesRequest
from infosink.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor

from ..calls import call_record, deadline
from ..calls.codec import beside
from ..calls.status import abort_on_error
from ..errors import InvalidRequestError, RequestError, UnknownModelError, listed, quoted
from ..limits import BATCH_SAMPLES
from ..models.draws import NOISE_ALGORITHM
from ..models.registry import Registry
from ..runtime.admission import REPLY_COPIES, Admission
from ..runtime.batching import all_in_order
from ..runtime.session import RUNTIME_VERSION, Array
from ..sampling.requests import check_samples
from .generation import check_generation
from .models import (
    InferenceModel,
    TensorSpec,
    encoder_of,
    generator_of,
    inference_models,
)
from .tensors import add_output, read_inputs, read_outputs

_SERVICE = DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE_NAME: str = _SERVICE.full_name

_METHODS = tuple(_SERVICE.methods_by_name)
_EXTENSIONS = ("model_configuration", "parameters")
_LONGEST_ID = 1024
"""Bytes: the reply holds it again."""

Context = grpc.aio.ServicerContext[Any, Any]


class OpenInferenceService(GRPCInferenceServiceServicer):
    """Answers from the same models as the native service, within the same bounds.

    Args:
        registry: The models.
        admission: What lets requests in.
        ready: Whether the server's health is SERVING.
    """

    def __init__(self, registry: Registry, admission: Admission, ready: Callable[[], bool]) -> None:
        self._registry, self._admission, self._ready = registry, admission, ready

    async def ServerLive(self, request: ServerLiveRequest, context: Context) -> ServerLiveResponse:
        """Whether the server answers: it does."""
        return ServerLiveResponse(live=True)

    async def ServerReady(self, request: ServerReadyRequest, context: Context) -> ServerReadyResponse:
        """Whether the server takes on work."""
        return ServerReadyResponse(ready=self._ready())

    async def ModelReady(self, request: ModelReadyRequest, context: Context) -> ModelReadyResponse:
        """Whether a model takes on work; one that is not served does not."""
        async with abort_on_error(context):
            try:
                with self._using(request.name, request.version):
                    return ModelReadyResponse(ready=self._ready())
            except RequestError:
                return ModelReadyResponse(ready=False)

    async def ServerMetadata(self, request: ServerMetadataRequest, context: Context) -> ServerMetadataResponse:
        """What this server is."""
        return ServerMetadataResponse(name="infosink", version=version("infosink"), extensions=_EXTENSIONS)

    async def ModelMetadata(self, request: ModelMetadataRequest, context: Context) -> ModelMetadataResponse:
        """A model's tensors."""
        async with abort_on_error(context):
            with self._using(request.name, request.version) as model:
                return model.metadata()

    async def ModelConfig(self, request: ModelConfigRequest, context: Context) -> ModelConfigResponse:
        """A model's tensors, what a request to it may hold, and how many rows."""
        async with abort_on_error(context):
            with self._using(request.name, request.version) as model:
                return ModelConfigResponse(config=model.config())

    async def ModelInfer(self, request: ModelInferRequest, context: Context) -> ModelInferResponse:
        """Samples of a generator, or codes from an encoder."""
        async with abort_on_error(context):
            deadline.bind(context)
            _check_id(request.id)
            with self._using(request.model_name, request.model_version) as model:
                call_record.current().model = model.served.name
                _check_parameters(request, model)
                specs = read_outputs(request, model.outputs)
                plan = _generation if model.role == "generator" else _inference
                work = await beside(request.ByteSize(), plan, request, model, specs)
                size = request.ByteSize() + work.rows * _row_bytes(model, specs)
                with self._admission.unary(model.session, work.rows, size):
                    started = ((feeds, model.session.start(feeds, work.outputs)) for feeds in work.feeds)
                    runs = await all_in_order(started)
                    parts = [_outputs(feeds, work, arrays, specs) for feeds, arrays in runs]
                    return await beside(size, _response, request, model, specs, work, parts)

    @contextmanager
    def _using(self, name: str, wanted_version: str) -> Iterator[InferenceModel]:
        served_models = self._registry.all()
        served_as = {model.encoder_name: model.name for model in served_models}
        served_as |= {model.name: model.name for model in served_models}
        if name and name not in served_as:
            every = [model for served in served_models for model in inference_models(served)]
            offered = listed([model.name for model in every])
            raise UnknownModelError(
                f"no model is named {quoted(name)}: those served are {offered}", metadata={"model": quoted(name)}
            )
        base = served_as.get(name, name)
        with self._registry.using(base) as served:
            model = generator_of(served) if name == base else encoder_of(served)
            if wanted_version not in ("", model.version):
                raise UnknownModelError(
                    f"{model.name} is served in version {model.version}, not {quoted(wanted_version)}: ask for that "
                    "one, or for none",
                    metadata={"model": model.name, "value": quoted(wanted_version), "limit": model.version},
                )
            yield model


class OtherMethods(grpc.GenericRpcHandler):
    """Answers the methods that other servers of this protocol have and this one has not: UNIMPLEMENTED, and why."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """A handler for whatever this protocol's service is asked for."""
        service, _, method = handler_call_details.method.removeprefix("/").partition("/")
        if service != SERVICE_NAME:
            return None

        async def refuse(requests: object, context: Context) -> None:
            del requests
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"{quoted(method)} is not offered here, nor are streams, shared memory, or a way for clients to choose "
                f"the models: {SERVICE_NAME} has the methods {', '.join(_METHODS)}",
            )

        return grpc.stream_stream_rpc_method_handler(refuse)


def _check_id(request_id: str) -> None:
    size = len(request_id.encode())
    if size > _LONGEST_ID:
        raise InvalidRequestError(
            f"id has {size} bytes, over the limit of {_LONGEST_ID}: shorten it",
            reason="LIMIT_EXCEEDED",
            field="id",
            metadata={"value": size, "limit": _LONGEST_ID},
        )


def _check_parameters(request: ModelInferRequest, model: InferenceModel) -> None:
    for name in request.parameters:
        if name not in model.parameters:
            known = ", ".join(model.parameters) or "no parameters"
            raise InvalidRequestError(
                f"parameters holds {quoted(name)}, but {model.name} has {known}",
                reason="VALUE_UNKNOWN",
                field="parameters",
                metadata={"value": quoted(name)},
            )


@dataclass(frozen=True)
class _Work:
    """What a model has to run for a request, and what the reply says of it."""

    rows: int
    feeds: Iterable[Mapping[str, Array]]
    """Of at most 64 rows each, in order."""
    outputs: Sequence[str]
    parameters: Mapping[str, InferParameter]


def _generation(request: ModelInferRequest, model: InferenceModel, specs: Sequence[TensorSpec]) -> _Work:
    generation = check_generation(request, model, specs)
    # What draws the same samples again.
    drawn = {
        "seed": InferParameter(uint64_param=generation.seed),
        "first_index": InferParameter(uint64_param=generation.first_index),
        "noise_algorithm": InferParameter(string_param=NOISE_ALGORITHM),
    }
    return _Work(
        rows=generation.count,
        feeds=(generation.latents(rows) for rows in _chunks(generation.count)),
        # Pixels do not show whether the sample that they were made from is finite.
        outputs=["sample", *(spec.name for spec in specs if spec.name == "pixels")],
        parameters=drawn if generation.draws else {},
    )


def _inference(request: ModelInferRequest, model: InferenceModel, specs: Sequence[TensorSpec]) -> _Work:
    arrays = read_inputs(request, model.inputs, model.batch_limit(specs))
    if "sample" not in arrays:
        raise InvalidRequestError("the input sample is missing: send it", reason="VALUE_MISSING", field="inputs")
    samples = _checked(arrays["sample"], model)
    return _Work(
        rows=len(samples),
        feeds=({"sample": samples[rows]} for rows in _chunks(len(samples))),
        outputs=[spec.name for spec in specs],
        parameters={},
    )


def _checked(samples: Array, model: InferenceModel) -> npt.NDArray[np.float32]:
    """Samples as the encoder reads them, checked as those of InferCodes are."""
    tensor = Tensor(data_type=DATA_TYPE_FLOAT32, shape=samples.shape, data=samples.astype("<f4", copy=False).tobytes())
    try:
        return check_samples(InferCodesRequest(tensor=tensor), model.served)
    except InvalidRequestError as error:
        # The fields that it names are of the other message.
        raise InvalidRequestError(str(error), reason=error.reason, field="inputs[0]", metadata=error.metadata) from None


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BATCH_SAMPLES, rows)) for start in range(0, rows, BATCH_SAMPLES))


def _row_bytes(model: InferenceModel, specs: Sequence[TensorSpec]) -> int:
    """About what a row takes beside the request: as read and computed, or its places in the reply's copies."""
    computed = sum(spec.row_bytes for spec in [*model.inputs.values(), *model.outputs.values(), *specs])
    return max(computed, REPLY_COPIES * sum(spec.row_bytes for spec in specs))


def _outputs(
    feeds: Mapping[str, Array], work: _Work, arrays: Sequence[Array], specs: Sequence[TensorSpec]
) -> list[Array]:
    """What was asked for of a chunk: what the model gave, or the codes that it read."""
    known = {**feeds, **dict(zip(work.outputs, arrays, strict=True))}
    return [known[spec.name] for spec in specs]


def _response(
    request: ModelInferRequest,
    model: InferenceModel,
    specs: Sequence[TensorSpec],
    work: _Work,
    parts: Sequence[Sequence[Array]],
) -> ModelInferResponse:
    response = ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    for name, value in work.parameters.items():
        response.parameters[name].CopyFrom(value)
    response.parameters["execution_provider"].string_param = model.session.execution_provider
    response.parameters["runtime_version"].string_param = RUNTIME_VERSION
    for spec, chunks in zip(specs, zip(*parts, strict=True), strict=True):
        add_output(response, spec, np.concatenate(chunks))
    return response
