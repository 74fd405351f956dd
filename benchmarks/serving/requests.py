"""The requests that clients send, encoded once: for so many images, or for the image of a given latent."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from infosink.v1.sampling_service_pb2 import Draw, SampleRequest

Latents = dict[str, npt.NDArray[np.generic]]

SAMPLE = "/infosink.v1.SamplingService/Sample"
CHECK = "/grpc.health.v1.Health/Check"
VARIANTS = 64
"""Requests of one kind, which take turns."""
IMAGE_BYTES = 32 * 32


def encoded(messages: Sequence[bytes]) -> list[str]:
    """Messages as a Job has them."""
    return [base64.b64encode(message).decode() for message in messages]


def sample_requests(rows: int) -> list[str]:
    """Sample calls for `rows` images, each by another seed."""
    return encoded([SampleRequest(draw=Draw(count=rows, seed=seed)).SerializeToString() for seed in range(VARIANTS)])


def packed(latents: Latents) -> list[bytes]:
    """Each latent as the bytes that rivals/generator.py reads."""
    columns = zip(latents["category"], latents["style"], latents["noise"], strict=True)
    return [b"".join(np.ascontiguousarray(value).tobytes() for value in values) for values in columns]


def json_bodies(latents: Latents, form: str) -> list[bytes]:
    """JSON objects with a packed latent in base64: LitServe's {"latent": TEXT}, BentoML's {"latents": [TEXT]}."""
    texts = [base64.b64encode(latent).decode() for latent in packed(latents)]
    return [json.dumps({form: [text] if form == "latents" else text}).encode() for text in texts]


def inference_requests(latents: Latents, model: str) -> list[bytes]:
    """ModelInfer calls of the Open Inference Protocol, with raw tensors, for the pixels of each latent."""
    from infosink.oip.open_inference_service_pb2 import ModelInferRequest

    types = {"category": "INT64", "style": "FP32", "noise": "FP32"}
    return [
        ModelInferRequest(
            model_name=model,
            inputs=[
                ModelInferRequest.InferInputTensor(
                    name=name, datatype=datatype, shape=latents[name][row : row + 1].shape
                )
                for name, datatype in types.items()
            ],
            outputs=[ModelInferRequest.InferRequestedOutputTensor(name="pixels")],
            raw_input_contents=[np.ascontiguousarray(latents[name][row]).tobytes() for name in types],
        ).SerializeToString()
        for row in range(len(latents["category"]))
    ]


def bytes_inference_requests(latents: Latents, model: str) -> list[bytes]:
    """The same with each packed latent as the one element of a BYTES tensor, its length before it."""
    from infosink.oip.open_inference_service_pb2 import ModelInferRequest

    tensor = ModelInferRequest.InferInputTensor(name="latent", datatype="BYTES", shape=[1, 1])
    return [
        ModelInferRequest(
            model_name=model, inputs=[tensor], raw_input_contents=[struct.pack("<I", len(latent)) + latent]
        ).SerializeToString()
        for latent in packed(latents)
    ]
