"""A typed client of an infosink server."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message
from infosink.v1 import model_pb2, sampling_service_pb2_grpc
from infosink.v1 import sampling_service_pb2 as v1
from numpy.typing import ArrayLike, NDArray

from .connection import (
    DEFAULT_TIMEOUT,
    DEFAULT_TRIES,
    checked_address,
    checked_timeout,
    checked_tries,
    default_address,
)
from .credentials import Credentials
from .draws import LARGEST_NOISE, Code, Draw
from .errors import (
    InfosinkError,
    MalformedReplyError,
    RequestRefusedError,
    ServerFailedError,
    ServerUnreachableError,
)
from .frames import check_space
from .handshake import handshake_failure
from .printable import printable
from .results import InferredCodes, Samples, join_codes, join_samples
from .retry import Attempts
from .status import details_of
from .wire import codes_from_reply, finite_float32, samples_from_batch, to_tensor

Reply = TypeVar("Reply")

# A stream is asked for in parts of this many samples, so that one deadline covers a bounded amount of work.
_SAMPLES_PER_CALL = 512

_MEBIBYTE = 1 << 20
# What gRPC servers accept in one request unless told otherwise.
_LARGEST_REQUEST = 4 * _MEBIBYTE
# The rest is for names.
_LARGEST_ARRAY = _LARGEST_REQUEST - 4096
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * _MEBIBYTE),
    ("grpc.max_send_message_length", 64 * _MEBIBYTE),
    # A proxy for the web has no route to a server on the loopback interface.
    ("grpc.enable_http_proxy", 0),
    # A client made after a server's start must not inherit the back-off of one made before it.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that restarts is back in seconds; gRPC would wait up to two minutes before it looks again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
# What is the server's fault and not the request's.
_FAILURES = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


class Client:
    """A connection to an infosink server: conditional sampling, and inference of the codes.

    Every call has a deadline and raises `ServerUnreachableError` where no server answers within it,
    `RequestRefusedError` where the server refuses the request, `ServerFailedError` where it fails to do it, and
    `MalformedReplyError` where its reply makes no sense. A call is made again, after a pause, where the server is busy
    and says when to come back, or was there and is gone; a long draw goes on after the last sample that came. A client
    may be used by several threads at once.

    Args:
        address: HOST:PORT; by default the environment variable INFOSINK_SERVER, or 127.0.0.1:50051.
        timeout: Seconds until one call, with all its tries, is given up, at most a day's. A long stream is several
            calls.
        tries: How often one call is made at most; 1 makes it once.
        tls: Whether the connection is encrypted and the server's certificate checked; implied by `ca` and
            `certificate`, and by the environment variable INFOSINK_TLS=1.
        ca: A PEM file of the CAs of which the server's certificate must be; by default the environment variable
            INFOSINK_CA, or the public CAs.
        certificate: A PEM file with the client's own certificate, where the server asks for one; by default the
            environment variable INFOSINK_CERTIFICATE.
        key: A PEM file with its private key, without a passphrase; by default the environment variable INFOSINK_KEY.
        token: What the server knows the client by, where it asks for one; by default the token in the file that the
            environment variable INFOSINK_TOKEN_FILE names. It is sent encrypted, or not beyond this machine.

    Raises:
        ValueError: If the address, the timeout or the number of tries makes no sense, a file cannot be used, or the
            token would cross the network unencrypted.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tries: int = DEFAULT_TRIES,
        tls: bool = False,
        ca: str | PathLike[str] | None = None,
        certificate: str | PathLike[str] | None = None,
        key: str | PathLike[str] | None = None,
        token: str | None = None,
    ) -> None:
        self.address = checked_address(address or default_address())
        self.timeout = checked_timeout(timeout)
        self.tries = checked_tries(tries)
        self._credentials = Credentials.checked(
            self.address, tls=tls, ca=ca, certificate=certificate, key=key, token=token
        )
        self._metadata = self._credentials.metadata()
        self._channel = _channel(self.address, self._credentials)
        self._service = sampling_service_pb2_grpc.SamplingServiceStub(self._channel)
        self._described: dict[str, v1.ServedModel] = {}
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            # An interrupt may strike while gRPC starts a call, for which closing then waits in vain.
            threading.Thread(target=self.close, daemon=True).start()

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled, and raise InfosinkError."""
        self._closed.set()
        self._channel.close()

    def models(self) -> list[v1.ServedModel]:
        """The models that the server serves; the first one is meant where no name is given."""
        reply = self._call(self._service.ListModels, v1.ListModelsRequest())
        for served in reply.served_models:
            check_space(served.model.sample_space)
        return list(reply.served_models)

    def model(self, name: str = "") -> v1.ServedModel:
        """One model: its description of itself, how the server runs it, and what it accepts in one request."""
        described = v1.ServedModel()
        described.CopyFrom(self._described_anew(name))
        return described

    def card(self, name: str = "") -> str:
        """One model's card, in Markdown, in the server's own words; empty where its file has none.

        Args:
            name: The model's name; empty for the server's first.
        """
        return self._call(self._service.GetModel, v1.GetModelRequest(model=name)).card

    def sample(
        self,
        count: int,
        *,
        category: int | None = None,
        label: str | None = None,
        style: ArrayLike | None = None,
        codes: Sequence[Code] | None = None,
        noise: ArrayLike | None = None,
        shared_noise_index: int | None = None,
        seed: int | None = None,
        first_index: int = 0,
        model: str = "",
    ) -> Samples:
        """Draws samples; what is left out is drawn from the prior.

        Sample i, for i in first_index .. first_index + count - 1, depends on the model, seed, i, its code and its
        noise alone. A count above what the server returns in one reply is streamed.

        Args:
            count: How many, at least 1.
            category: The index of the category of all samples.
            label: The label of all samples; excludes `category`.
            style: The style of all samples, one value in [-1, 1] for each style.
            codes: The codes in turn, sample i taking codes[i mod their number]; excludes the three above.
            noise: [count, N], or [1, N] for all samples alike, in [-10, 10]; standard normal where left out.
            shared_noise_index: The sample whose noise all samples take; excludes `noise`.
            seed: 0 to 2**64 - 1; chosen by the server where left out, and stated in the result.
            first_index: The index of the first sample.
            model: The model's name; empty for the server's first.

        Raises:
            TypeError: If noise is not numbers.
            ValueError: If arguments exclude each other or are out of range.
        """
        draw = _draw(count, category, label, style, codes, noise, shared_noise_index, seed, first_index)
        request = _unary_request(draw, self._describe(model), model)
        if request is None:
            return join_samples(list(self._stream(draw, model)))
        reply = self._call(self._service.Sample, request)
        samples = self._samples(reply.batch, draw, 0, model)
        _check_count(len(samples), count)
        return samples

    def stream(
        self,
        count: int,
        *,
        category: int | None = None,
        label: str | None = None,
        style: ArrayLike | None = None,
        codes: Sequence[Code] | None = None,
        noise: ArrayLike | None = None,
        shared_noise_index: int | None = None,
        seed: int | None = None,
        first_index: int = 0,
        model: str = "",
    ) -> Iterator[Samples]:
        """Draws samples in batches of a few hundred, in order of their index; each is asked for when it is needed.

        The arguments and errors are those of `sample`.
        """
        draw = _draw(count, category, label, style, codes, noise, shared_noise_index, seed, first_index)
        return self._stream(draw, model)

    def infer(self, samples: ArrayLike, *, model: str = "") -> InferredCodes:
        """Infers the posterior of category and style from images or points.

        More than the server accepts in one request are sent in several.

        Args:
            samples: uint8 [n, height, width] or [n, height, width, channels] in the native or the model's frame;
                real numbers [n, dimensions] for points.
            model: The model's name; empty for the server's first.

        Raises:
            TypeError: If images are not uint8, or points not numbers.
            ValueError: If there are none, the number of axes is wrong, or a point is not finite.
        """
        served = self._describe(model)
        array = _inferable(np.asarray(samples), served.model)
        step = max(1, min(served.limits.inferred_samples, _LARGEST_ARRAY // max(1, array[0].nbytes)))
        batches = []
        for start in range(0, len(array), step):
            part = array[start : start + step]
            request = v1.InferCodesRequest(model=model, tensor=to_tensor(part))
            reply = self._call(self._service.InferCodes, request)
            described = self._same_checkpoint(reply.checkpoint_sha256, model)
            batches.append(codes_from_reply(reply, len(part), described))
        return join_codes(batches)

    def _stream(self, draw: Draw, model: str) -> Iterator[Samples]:
        limits = self._describe(model).limits
        bounds = (_SAMPLES_PER_CALL, limits.stream_samples, limits.codes if len(draw.codes) > limits.codes else 0)
        step = min(bound for bound in bounds if bound)
        start = 0
        while start < draw.count:
            part = draw.part(start, min(step, draw.count - start))
            request = v1.StreamSamplesRequest(model=model, draw=part.to_wire())
            if request.ByteSize() > _LARGEST_REQUEST and part.count > 1:
                step = part.count // 2
                continue
            samples = self._stream_part(part, model)
            # The server chose the first part's seed where none was given; the others follow it.
            draw = replace(draw, seed=samples.seed)
            start += part.count
            yield samples

    def _stream_part(self, draw: Draw, model: str) -> Samples:
        # Received as a whole, so that the deadline measures the server and not what is done with the samples.
        batches: list[Samples] = []
        attempts = Attempts(self.tries, self.timeout, self._closed)
        while (received := sum(map(len, batches))) < draw.count:
            remaining = draw.part(received, draw.count - received)
            try:
                self._receive(remaining, model, attempts.time_left, batches)
            except grpc.RpcError as error:
                # One more try goes on after what came.
                if not attempts.pause(error, server_is_known=bool(self._described)):
                    raise self._meaning(error) from None
            else:
                _check_count(sum(map(len, batches)), draw.count)
            draw = replace(draw, seed=batches[0].seed) if batches else draw
        return join_samples(batches)

    def _receive(self, draw: Draw, model: str, timeout: float, batches: list[Samples]) -> None:
        """Appends the batches of one call, as they come.

        Raises:
            grpc.RpcError: If the call fails, perhaps after some batches.
        """
        request = v1.StreamSamplesRequest(model=model, draw=draw.to_wire())
        call = self._service.StreamSamples(request, timeout=timeout, metadata=self._metadata)
        received = 0
        try:
            for reply in call:
                batches.append(self._samples(reply.batch, draw, received, model))
                received += len(batches[-1])
                draw = replace(draw, seed=batches[-1].seed)
        finally:
            call.cancel()

    def _samples(self, batch: v1.SampleBatch, draw: Draw, received: int, model: str) -> Samples:
        samples = samples_from_batch(batch, self._same_checkpoint(batch.checkpoint_sha256, model))
        _check_continuation(samples, draw, received)
        return samples

    def _describe(self, name: str) -> v1.ServedModel:
        return self._described.get(name) or self._described_anew(name)

    def _described_anew(self, name: str) -> v1.ServedModel:
        reply = self._call(self._service.GetModel, v1.GetModelRequest(model=name))
        check_space(reply.served_model.model.sample_space)
        self._described[name] = reply.served_model
        return reply.served_model

    def _same_checkpoint(self, checkpoint_sha256: str, name: str) -> model_pb2.Model:
        model = self._describe(name).model
        if model.checkpoint_sha256 != checkpoint_sha256:
            self._described.pop(name, None)
            raise MalformedReplyError(
                f"the server's model {printable(model.name)} changed from checkpoint "
                f"{printable(model.checkpoint_sha256[:12])} to {printable(checkpoint_sha256[:12])} meanwhile; ask again"
            )
        return model

    def _call(self, method: Callable[..., Reply], request: Message) -> Reply:
        """The reply to one request, which is made again as far as that makes sense."""
        attempts = Attempts(self.tries, self.timeout, self._closed)
        while True:
            try:
                return method(request, timeout=attempts.time_left, metadata=self._metadata)
            except grpc.RpcError as error:
                if not attempts.pause(error, server_is_known=bool(self._described)):
                    raise self._meaning(error) from None

    def _meaning(self, error: Any) -> InfosinkError:
        code, details, more = error.code(), printable(error.details() or ""), details_of(error)
        if code is grpc.StatusCode.CANCELLED and self._closed.is_set():
            return InfosinkError("this client was closed, which cancelled the call")
        if code is grpc.StatusCode.UNAVAILABLE and more.reason == "DRAINING":
            return ServerUnreachableError(
                f"the infosink server at {self.address} is shutting down; ask again when it is back ({details})"
            )
        if code is grpc.StatusCode.CANCELLED or (code is grpc.StatusCode.UNAVAILABLE and self._described):
            return ServerUnreachableError(
                f"the infosink server at {self.address} went away; ask again when it is back ({details})"
            )
        if code is grpc.StatusCode.UNAVAILABLE:
            if problem := handshake_failure(details, self.address, self._credentials):
                return ServerUnreachableError(problem)
            return ServerUnreachableError(
                f"no infosink server answers at {self.address}; start one with: infosink-serve, "
                f"or name another with --server or INFOSINK_SERVER ({details})"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and more.reason:
            return ServerUnreachableError(
                f"the infosink server at {self.address} cannot answer within {self.timeout:g} s ({details}); "
                "wait longer with --timeout, or ask for less"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerUnreachableError(
                f"the infosink server at {self.address} did not answer within {self.timeout:g} s; "
                "wait longer with --timeout, or ask for less"
            )
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return RequestRefusedError(
                code.name, f"the server at {self.address} does not speak infosink.v1; name another with --server"
            )
        if code in _FAILURES:
            return ServerFailedError(code.name, details, request_id=more.request_id)
        return RequestRefusedError(
            code.name, details, reason=more.reason, violations=more.violations, retry_after=more.retry_after
        )


def _channel(address: str, credentials: Credentials) -> grpc.Channel:
    if not credentials.tls:
        return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*credentials.read()), options=_CHANNEL_OPTIONS)


def _draw(
    count: int,
    category: int | None,
    label: str | None,
    style: ArrayLike | None,
    codes: Sequence[Code] | None,
    noise: ArrayLike | None,
    shared_noise_index: int | None,
    seed: int | None,
    first_index: int,
) -> Draw:
    if codes is not None and not (category is None and label is None and style is None):
        raise ValueError("give codes, or one category, label or style for all samples, not both")
    if codes is None:
        values = () if style is None else tuple(float(value) for value in np.atleast_1d(np.asarray(style, np.float64)))
        drawn = category is None and label is None and not values
        codes = () if drawn else (Code(category, label, values),)
    return Draw(
        count=count,
        codes=tuple(codes),
        noise=None if noise is None else finite_float32(noise, "noise values", LARGEST_NOISE),
        shared_noise_index=shared_noise_index,
        seed=seed,
        first_index=first_index,
    )


def _unary_request(draw: Draw, served: v1.ServedModel, model: str) -> v1.SampleRequest | None:
    """The request for all samples in one reply, or None where it or the reply would be too large."""
    limits = served.limits
    points = served.model.sample_space.HasField("point")
    if draw.count > (limits.unary_float32_samples if points else limits.unary_uint8_samples):
        return None
    needed = draw.part(0, draw.count)
    request = v1.SampleRequest(model=model, draw=needed.to_wire())
    return request if len(needed.codes) <= limits.codes and request.ByteSize() <= _LARGEST_REQUEST else None


def _check_continuation(samples: Samples, draw: Draw, received: int) -> None:
    if samples.first_index != draw.first_index + received:
        raise MalformedReplyError(
            f"the server's reply holds samples from index {samples.first_index} on, "
            f"not from {draw.first_index + received} on"
        )
    if not 0 < len(samples) <= draw.count - received:
        raise MalformedReplyError(
            f"{draw.count} samples were asked for, and after {received} of them the server's reply holds "
            f"a batch of {len(samples)}"
        )
    if draw.seed is not None and samples.seed != draw.seed:
        raise MalformedReplyError(f"the server's reply holds samples of the seed {samples.seed}, not of {draw.seed}")
    if (samples.shared_noise_index, samples.noise_given) != (draw.shared_noise_index, draw.noise is not None):
        raise MalformedReplyError("the server's reply holds samples of another noise than was asked for")


def _check_count(received: int, expected: int) -> None:
    if received != expected:
        raise MalformedReplyError(f"{expected} samples were asked for, and the server's reply holds {received}")


def _inferable(array: NDArray[Any], model: model_pb2.Model) -> NDArray[Any]:
    if array.ndim == 0 or len(array) == 0:
        raise ValueError("there is nothing to infer codes from; give at least one sample")
    if model.sample_space.HasField("image"):
        if array.dtype != np.uint8:
            raise TypeError(f"images are uint8, with grey levels 0 to 255; these are {array.dtype}")
        array = array[..., np.newaxis] if array.ndim == 3 else array
        if array.ndim != 4:
            raise ValueError(
                f"images of shape {list(array.shape)}; give [n, height, width] or [n, height, width, channels]"
            )
        return array
    if array.ndim != 2:
        raise ValueError(f"points of shape {list(array.shape)}; give [n, dimensions]")
    return finite_float32(array, "points")
