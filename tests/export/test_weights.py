"""Weights stored narrow: what the files hold, what onnxruntime makes of them, and what they lose."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from infosink.export import rounding
from infosink.export.errors import ExportError
from infosink.export.export import ExportedModel
from infosink.export.parity import measure_parity
from infosink.export.rounding import measure_rounding
from infosink.export.weights import Weights, rounded_networks, store_weights
from infosink.training.networks import Networks
from infosink.training.trained_model import TrainedModel
from onnx import ModelProto, TensorProto, helper, numpy_helper

Run = Callable[..., dict[str, Any]]
NARROW: list[Weights] = ["float16", "int8"]
CHANNELS = 8


def narrowed(files: ExportedModel, weights: Weights) -> tuple[ModelProto, ModelProto]:
    """The graphs of both files with weights stored so."""
    models = onnx.load(files.generator_path), onnx.load(files.encoder_path)
    for model in models:
        store_weights(model, weights)
    return models


def stored_types(model: ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def mnist_int8(mnist_files: ExportedModel) -> tuple[ModelProto, ModelProto]:
    return narrowed(mnist_files, "int8")


def test_images_in_int8_pass_the_gate_in_less_than_20_mb(
    mnist: TrainedModel, mnist_int8: tuple[ModelProto, ModelProto]
) -> None:
    """The networks of Table 3; to the usual tolerance, with the same bytes at every batch size."""
    assert sum(model.ByteSize() for model in mnist_int8) < 20e6
    rounded = dataclasses.replace(mnist, networks=rounded_networks(mnist.networks, "int8"))
    parity = measure_parity(rounded, *mnist_int8)
    assert max(value for name, value in parity.tolerance.items() if name != "pixels") < 1e-4


@pytest.mark.parametrize("weights", NARROW)
def test_points_pass_the_gate(gaussians: TrainedModel, gaussians_files: ExportedModel, weights: Weights) -> None:
    rounded = dataclasses.replace(gaussians, networks=rounded_networks(gaussians.networks, weights))
    graphs = narrowed(gaussians_files, weights)
    measure_parity(rounded, *graphs)
    with pytest.raises(ExportError, match="differs from PyTorch"):
        measure_parity(gaussians, *graphs)


def test_large_weights_are_int8_and_all_else_is_as_it_was(
    mnist_files: ExportedModel, mnist_int8: tuple[ModelProto, ModelProto]
) -> None:
    types = stored_types(mnist_int8[0]) | stored_types(mnist_int8[1])
    assert {name for name, kind in types.items() if kind == TensorProto.INT8} == {
        "generator.0.weight.int8",
        "generator.2.weight.int8",
        "generator.5.weight.int8",
        "trunk.2.weight.int8",
        "trunk.5.weight.int8",
        "code_head.0.weight.int8",
    }
    for wide, narrow in zip((mnist_files.generator_path, mnist_files.encoder_path), mnist_int8, strict=True):
        before = {tensor.name: tensor for tensor in onnx.load(wide).graph.initializer}
        kept = [tensor for tensor in narrow.graph.initializer if tensor.name in before]
        assert kept
        assert all(tensor == before[tensor.name] for tensor in kept)


@pytest.mark.parametrize("weights", NARROW)
def test_onnxruntime_widens_them_once_when_it_loads(
    gaussians_files: ExportedModel,
    mnist_int8: tuple[ModelProto, ModelProto],
    tmp_path: Path,
    weights: Weights,
) -> None:
    for model in (*narrowed(gaussians_files, weights), *(mnist_int8 if weights == "int8" else ())):
        nodes = {node.name for node in model.graph.node if node.output[0].startswith(("generator", "trunk", "code"))}
        assert nodes
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # that the file is for this machine only
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(tmp_path / "optimised.onnx")
        assert not nodes & {node.name for node in optimised.graph.node}
        assert not {TensorProto.INT8, TensorProto.FLOAT16} & set(stored_types(optimised).values())


def operation(kind: str, random: np.random.Generator) -> tuple[ModelProto, str, Any, Any]:
    """A graph of one operation with CHANNELS outputs of very different size, its weight's name, and an input."""
    shape, sample, axis, attributes = {
        "Gemm": ((600, CHANNELS), (32, 600), 1, {}),
        "Gemm transposed": ((CHANNELS, 600), (32, 600), 0, {"transB": 1}),
        "MatMul": ((600, CHANNELS), (32, 600), 1, {}),
        "Conv": ((CHANNELS, 40, 4, 4), (1, 40, 6, 6), 0, {}),
        "ConvTranspose": ((40, CHANNELS, 4, 4), (1, 40, 6, 6), 1, {}),
    }[kind]
    sizes = np.logspace(-4, 4, CHANNELS).astype(np.float32)
    sizes[3] = 0
    values = random.standard_normal(shape, np.float32) * np.expand_dims(
        sizes, [i for i in range(len(shape)) if i != axis]
    )
    node = helper.make_node(kind.split()[0], ["x", "a.weight"], ["y"], name="only", **attributes)
    graph = helper.make_graph(
        [node],
        "operation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sample)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, "a.weight")],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    return model, "y", values, random.standard_normal(sample, np.float32)


@pytest.mark.parametrize("kind", ["Gemm", "Gemm transposed", "MatMul", "Conv", "ConvTranspose"])
def test_every_output_channel_has_its_own_scale(run: Run, kind: str) -> None:
    """With one scale for all, or one for each input, the small channels would vanish."""
    model, output, values, sample = operation(kind, np.random.default_rng(0))
    exact = run(model.SerializeToString(), {"x": sample})[output]
    store_weights(model, "int8")
    rounded = run(model.SerializeToString(), {"x": sample})[output]
    assert stored_types(model)["a.weight.int8"] == TensorProto.INT8
    axes = tuple(axis for axis in range(exact.ndim) if axis != 1)
    error = np.sqrt(((rounded - exact) ** 2).mean(axes))
    size = np.sqrt((exact**2).mean(axes))
    others = np.arange(CHANNELS) != 3
    assert (error[others] < 0.02 * size[others]).all()
    assert error[3] == size[3] == 0
    assert (error[others] > 0).all()
    assert values.size >= 4096


def with_weight(model: TrainedModel, files: ExportedModel, value: float) -> tuple[ModelProto, Networks]:
    """The generator's graph and the networks with one large weight's first entry replaced."""
    graph, networks = onnx.load(files.generator_path), copy.deepcopy(model.networks)
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == "generator.2.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    networks.sampling_generator.get_parameter("2.weight")[0, 0] = value
    return graph, networks


@pytest.mark.parametrize(
    ("weights", "value"), [("float16", np.nan), ("int8", np.nan), ("int8", np.inf), ("float16", -1e5)]
)
def test_a_weight_that_cannot_be_stored_is_refused(
    gaussians: TrainedModel, gaussians_files: ExportedModel, weights: Weights, value: float
) -> None:
    graph, networks = with_weight(gaussians, gaussians_files, value)
    complaint = f"a weight is .* and {weights} holds up to .*; nothing was written: .*--weights float32"
    with pytest.raises(ExportError, match=complaint):
        store_weights(graph, weights)
    with pytest.raises(ExportError, match=complaint):
        rounded_networks(networks, weights)


def test_a_large_weight_is_stored_as_int8(gaussians: TrainedModel, gaussians_files: ExportedModel) -> None:
    graph, networks = with_weight(gaussians, gaussians_files, -1e5)
    store_weights(graph, "int8")
    rounded_networks(networks, "int8")


def test_the_loss_of_images_is_in_grey_levels(mnist: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "_SAMPLES", 100)
    loss = measure_rounding(mnist, rounded_networks(mnist.networks, "int8"), "int8")
    assert (loss.unit, loss.samples) == ("grey levels", 100)
    assert 0 < loss.sample_mean < 1 <= loss.sample_largest == int(loss.sample_largest)
    assert 0 < loss.category_probability < 0.05
    assert 0 < loss.style_mean < 0.05


def test_half_precision_loses_less_than_int8(gaussians: TrainedModel) -> None:
    half, int8 = (measure_rounding(gaussians, rounded_networks(gaussians.networks, each), each) for each in NARROW)
    assert 0 < half.sample_mean < int8.sample_mean
    assert 0 < half.sample_largest < int8.sample_largest
    assert 0 < half.category_probability < int8.category_probability


def test_a_loss_is_seen_where_it_is(gaussians: TrainedModel) -> None:
    same = measure_rounding(gaussians, gaussians.networks, "float32")
    assert (same.sample_mean, same.sample_largest, same.category_probability, same.category_changed) == (0, 0, 0, 0)
    moved = copy.deepcopy(gaussians.networks)
    moved.sampling_generator.get_parameter("6.bias").add_(torch.tensor([3.0, 1.0]))
    moved.code_head.get_parameter("3.bias")[7] += 1e4
    loss = measure_rounding(gaussians, moved, "float32")
    assert (loss.sample_mean, loss.sample_largest) == (pytest.approx(2), pytest.approx(3))
    seventh = gaussians.categories[7].sample_share
    assert loss.category_changed == pytest.approx(1 - seventh, abs=0.08)
    assert 0.5 < loss.category_probability <= 1
