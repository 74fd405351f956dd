"""Makes the model files of schema version 1 that every later server must load.

usage: python tests/compatibility/make_schema_1.py [DIRECTORY]

Two generator and encoder pairs of a few kilobytes each, written to `schema-1` beside this file unless a directory is
given: `gen.onnx` with `q.onnx` (images) and `points-gen.onnx` with `points-q.onnx`. Running it again gives the same
bytes. Once a schema version is released, its files are never made anew: they stand for the files users have.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from infosink.v1.model_pb2 import Category, ImageSpace, LatentSpace, PointSpace, SampleSpace, Style
from onnx import TensorProto, helper, numpy_helper

SCHEMA_VERSION = "1"
OPSET = 17
IR_VERSION = 8

IMAGE_LATENTS = LatentSpace(
    categories=[
        Category(label="0", label_share=0.97, sample_share=0.25, recovery=0.99),
        Category(label="1", label_share=0.95, sample_share=0.25, recovery=0.98),
        Category(label="1", label_share=0.91, sample_share=0.25, recovery=0.97),
        Category(label="7", label_share=0.89, sample_share=0.25, recovery=0.96),
    ],
    styles=[Style(name="slant", meaning="slant, rank correlation 0.91"), Style(name="style 2")],
    noise_dimensions=3,
)
IMAGE_SAMPLES = SampleSpace(
    image=ImageSpace(
        channels=1,
        height=8,
        width=8,
        padding_top=1,
        padding_left=1,
        padding_bottom=1,
        padding_right=1,
        background=0,
        minimum=-1,
        maximum=1,
    )
)
POINT_LATENTS = LatentSpace(
    categories=[Category(label=str(k), sample_share=1 / 3) for k in range(3)], noise_dimensions=2
)
POINT_SAMPLES = SampleSpace(point=PointSpace(dimensions=2))

Weights = npt.NDArray[np.float32]


def cosines(count: int, length: int) -> Weights:
    """The first `count` cosine vectors, float32 [count, length]: orthogonal, each of squared norm `length` / 2.

    Rounded, so that the last bit of a platform's cosine does not matter.
    """
    rows = [[round(math.cos(math.pi * (j + 0.5) * (i + 1) / length), 4) for j in range(length)] for i in range(count)]
    return np.array(rows, np.float32)


def framed(rows: Weights, padding: float) -> Weights:
    """Rows of 6 x 6 pixels to rows of 8 x 8, surrounded by `padding`."""
    images = rows.reshape(-1, 6, 6)
    return np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=padding).reshape(-1, 64)


def compact(message: Message) -> str:
    """The message as JSON, its keys sorted."""
    fields = MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def metadata(role: str, name: str, latents: LatentSpace, samples: SampleSpace) -> dict[str, str]:
    return {
        "infosink.schema_version": SCHEMA_VERSION,
        "infosink.role": role,
        "infosink.name": name,
        "infosink.data_set": name,
        "infosink.latent_space": compact(latents),
        "infosink.sample_space": compact(samples),
        "infosink.checkpoint_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "infosink.config": json.dumps({"data_set": name, "seed": 0}),
        "infosink.parity": json.dumps({"pixels": 0, "sample": 0.0}),
        "infosink.licence": "Apache-2.0",
    }


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int]]],
    outputs: dict[str, tuple[int, list[int]]],
    constants: dict[str, np.ndarray],
    properties: dict[str, str],
) -> None:
    """Writes one model file; each input and output is its element type and its shape after the batch dimension."""

    def described(values: dict[str, tuple[int, list[int]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, (kind, shape) in values.items()]

    graph = helper.make_graph(
        nodes,
        properties["infosink.role"],
        described(inputs),
        described(outputs),
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph, producer_name="infosink", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def latent_nodes(category_count: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that concatenate one-hot category, style and noise to `latent`."""
    nodes = [
        helper.make_node("OneHot", ["category", "depth", "off_on"], ["one_hot"], axis=-1),
        helper.make_node("Concat", ["one_hot", "style", "noise"], ["latent"], axis=1),
    ]
    return nodes, {"depth": np.array(category_count, np.int64), "off_on": np.array([0, 1], np.float32)}


def latent_inputs(latents: LatentSpace) -> dict[str, tuple[int, list[int]]]:
    return {
        "category": (TensorProto.INT64, []),
        "style": (TensorProto.FLOAT, [len(latents.styles)]),
        "noise": (TensorProto.FLOAT, [latents.noise_dimensions]),
    }


def code_outputs(latents: LatentSpace) -> dict[str, tuple[int, list[int]]]:
    return {
        "category_probability": (TensorProto.FLOAT, [len(latents.categories)]),
        "style_mean": (TensorProto.FLOAT, [len(latents.styles)]),
        "style_std": (TensorProto.FLOAT, [len(latents.styles)]),
    }


def make_image_generator(path: Path) -> None:
    """sample = tanh(latent @ W + b), each latent dimension along a cosine of its own; the padding stays -1."""
    patterns = framed(cosines(9, 36), 0)
    strength = np.array([0.8] * 4 + [0.4] * 2 + [0.15] * 3, np.float32)
    nodes, constants = latent_nodes(4)
    nodes += [
        helper.make_node("Gemm", ["latent", "weight", "bias"], ["activation"]),
        helper.make_node("Tanh", ["activation"], ["flat"]),
        helper.make_node("Reshape", ["flat", "frame"], ["sample"]),
        helper.make_node("Transpose", ["sample"], ["channels_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["channels_last", "one"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "half_range"], ["levels"]),
        helper.make_node("Round", ["levels"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "lowest", "highest"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["pixels"], to=TensorProto.UINT8),
    ]
    constants |= {
        "weight": patterns * strength[:, None],
        "bias": framed(np.full((1, 36), -0.3, np.float32), -10)[0],
        "frame": np.array([-1, 1, 8, 8], np.int64),
        "one": np.array(1, np.float32),
        "half_range": np.array(127.5, np.float32),
        "lowest": np.array(0, np.float32),
        "highest": np.array(255, np.float32),
    }
    outputs = {"sample": (TensorProto.FLOAT, [1, 8, 8]), "pixels": (TensorProto.UINT8, [8, 8, 1])}
    properties = metadata("generator", "tiny-images", IMAGE_LATENTS, IMAGE_SAMPLES)
    write(path, nodes, latent_inputs(IMAGE_LATENTS), outputs, constants, properties)


def make_image_encoder(path: Path) -> None:
    """Reads each code back along the cosine the generator wrote it with."""
    patterns = framed(cosines(9, 36), 0).T / 18
    nodes = [
        helper.make_node("Flatten", ["sample"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "category_weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["category_probability"], axis=1),
        helper.make_node("Gemm", ["flat", "mean_weight"], ["mean_activation"]),
        helper.make_node("Tanh", ["mean_activation"], ["style_mean"]),
        helper.make_node("Gemm", ["flat", "std_weight", "std_bias"], ["std_activation"]),
        helper.make_node("Sigmoid", ["std_activation"], ["style_std"]),
    ]
    constants = {
        "category_weight": np.ascontiguousarray(patterns[:, :4] * np.float32(12)),
        "mean_weight": np.ascontiguousarray(patterns[:, 4:6] * np.float32(3)),
        "std_weight": np.ascontiguousarray(patterns[:, 6:8]),
        "std_bias": np.full(2, -1, np.float32),
    }
    inputs = {"sample": (TensorProto.FLOAT, [1, 8, 8])}
    properties = metadata("encoder", "tiny-images", IMAGE_LATENTS, IMAGE_SAMPLES)
    write(path, nodes, inputs, code_outputs(IMAGE_LATENTS), constants, properties)


def make_point_generator(path: Path) -> None:
    """sample = 3 tanh(latent @ W): three clusters around a triangle's corners; style has no width."""
    nodes, constants = latent_nodes(3)
    nodes += [
        helper.make_node("Gemm", ["latent", "weight"], ["activation"]),
        helper.make_node("Tanh", ["activation"], ["unit"]),
        helper.make_node("Mul", ["unit", "radius"], ["sample"]),
    ]
    constants |= {
        "weight": np.array([[0, 0.9], [-0.8, -0.5], [0.8, -0.5], [0.05, 0], [0, 0.05]], np.float32),
        "radius": np.array(3, np.float32),
    }
    outputs = {"sample": (TensorProto.FLOAT, [2])}
    properties = metadata("generator", "tiny-points", POINT_LATENTS, POINT_SAMPLES)
    write(path, nodes, latent_inputs(POINT_LATENTS), outputs, constants, properties)


def make_point_encoder(path: Path) -> None:
    """Softmax of a linear readout; the style posterior has no width."""
    nodes = [
        helper.make_node("Gemm", ["sample", "category_weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["category_probability"], axis=1),
        helper.make_node("Slice", ["sample", "start", "end", "axis"], ["style_mean"]),
        helper.make_node("Slice", ["sample", "start", "end", "axis"], ["style_std"]),
    ]
    constants = {
        "category_weight": np.array([[0, -3, 3], [3, -2, -2]], np.float32),
        "start": np.array([0], np.int64),
        "end": np.array([0], np.int64),
        "axis": np.array([1], np.int64),
    }
    inputs = {"sample": (TensorProto.FLOAT, [2])}
    properties = metadata("encoder", "tiny-points", POINT_LATENTS, POINT_SAMPLES)
    write(path, nodes, inputs, code_outputs(POINT_LATENTS), constants, properties)


def make_schema_1(directory: Path) -> None:
    """Writes all four files to an existing directory."""
    make_image_generator(directory / "gen.onnx")
    make_image_encoder(directory / "q.onnx")
    make_point_generator(directory / "points-gen.onnx")
    make_point_encoder(directory / "points-q.onnx")


if __name__ == "__main__":
    make_schema_1(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "schema-1")
