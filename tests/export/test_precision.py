"""Large layers that compute in int8: what they become, what they cost, and what is refused."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from infosink.export.errors import ExportError
from infosink.export.export import ExportedModel, export_model
from infosink.export.graph_runner import GraphRunner
from infosink.export.quantisation import quantise
from infosink.serving.models.served_model import load_model
from infosink.training.trained_model import TrainedModel
from onnx import ModelProto, TensorProto, numpy_helper


@pytest.fixture(scope="module")
def mnist_int8(mnist: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return export_model(mnist, tmp_path_factory.mktemp("int8"), precision="int8")


def operators(path: Path, scratch: Path) -> list[str]:
    """What onnxruntime runs, in order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # that the file is for this machine only
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(scratch / "optimised.onnx").graph.node]


def test_large_layers_but_the_first_run_as_operations_on_integers(mnist_int8: ExportedModel, tmp_path: Path) -> None:
    """DequantizeLinear of a weight would otherwise stay, and a row's bytes would depend on its batch."""
    generator = operators(mnist_int8.generator_path, tmp_path)
    encoder = operators(mnist_int8.encoder_path, tmp_path)
    assert (generator.count("QGemm"), generator.count("ConvTranspose")) == (1, 2)
    assert (encoder.count("QGemm"), encoder.count("QLinearConv")) == (2, 1)
    assert "DequantizeLinear" not in generator + encoder
    first = next(node for node in onnx.load(mnist_int8.generator_path).graph.node if node.op_type == "Gemm")
    assert first.input[1] == "generator.0.weight"


def test_its_cost_is_measured_and_told(mnist_files: ExportedModel, mnist_int8: ExportedModel) -> None:
    loss = mnist_int8.rounding
    assert loss is not None
    assert (loss.precision, loss.weights, loss.unit) == ("int8", "float32", "grey levels")
    assert 0 < loss.sample_mean < 1
    assert 0 < loss.category_probability < 0.1
    metadata = {each.key: each.value for each in onnx.load(mnist_int8.generator_path).metadata_props}
    assert metadata["infosink.precision"] == "int8"
    assert "Large layers compute in int8" in metadata["infosink.card"]
    # What it was made of agrees with PyTorch as ever.
    assert mnist_int8.parity == mnist_files.parity
    assert mnist_int8.generator_path.stat().st_size < 0.5 * mnist_files.generator_path.stat().st_size


def test_its_files_state_their_content(mnist_int8: ExportedModel, states_its_content: Callable[[Path], bool]) -> None:
    assert states_its_content(mnist_int8.generator_path)
    assert states_its_content(mnist_int8.encoder_path)


def test_a_server_finds_the_same_bytes_at_every_batch_size(mnist_int8: ExportedModel) -> None:
    model = load_model(
        mnist_int8.generator_path, name=None, encoder_path=None, device="cpu", threads=1, stream_samples=1
    )
    assert model.encoder is not None
    model.close()


def test_weights_leave_room_for_sums_of_16_bits(mnist_int8: ExportedModel) -> None:
    codes = [
        numpy_helper.to_array(tensor)
        for path in (mnist_int8.generator_path, mnist_int8.encoder_path)
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == TensorProto.INT8 and tensor.name.endswith("weight.codes")
    ]
    assert len(codes) == 4
    assert {int(np.abs(each).max()) for each in codes} == {64}
    assert np.iinfo(np.int16).max > 2 * 255 * 64


def test_both_ways_of_int8_go_together(gaussians: TrainedModel, tmp_path: Path) -> None:
    both = export_model(gaussians, tmp_path / "both", precision="int8", weights="int8")
    alone = export_model(gaussians, tmp_path / "alone", precision="int8")
    assert both.rounding is not None
    assert (both.rounding.precision, both.rounding.weights) == ("int8", "int8")
    assert both.encoder_path.stat().st_size < alone.encoder_path.stat().st_size


def test_weights_that_are_widened_anew_in_every_run_are_refused(
    gaussians_files: ExportedModel, latents: Callable[..., dict[str, np.ndarray]], gaussians: TrainedModel
) -> None:
    """Without a zero of its own onnxruntime takes a weight for none of integers, and widens it whenever it runs."""
    inputs = latents(gaussians, 128)
    model = onnx.load(gaussians_files.generator_path)
    quantise(model, inputs)
    sound = GraphRunner("gen.onnx", model).checked(inputs)["sample"]
    exact = GraphRunner("gen.onnx", onnx.load(gaussians_files.generator_path)).run(inputs)["sample"]
    assert 0 < np.abs(sound - exact).max() < 0.1 * np.abs(exact).max()
    unfolded = copy.deepcopy(model)
    for node in unfolded.graph.node:
        if node.name.endswith(".weight"):
            del node.input[2]
    with pytest.raises(ExportError, match=r"gen\.onnx gives another sample in a batch of \d+ than for a row alone"):
        GraphRunner("gen.onnx", unfolded).checked(inputs)


def test_a_graph_without_large_layers_is_refused(gaussians_files: ExportedModel) -> None:
    model = onnx.load(gaussians_files.generator_path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("weight"):
            few = numpy_helper.to_array(tensor).ravel()[:100].reshape(10, 10)
            tensor.CopyFrom(numpy_helper.from_array(few, tensor.name))
    with pytest.raises(ExportError, match="no layer that int8 would speed up: leave --precision int8 out"):
        quantise(model, {})


def test_values_that_are_not_finite_are_refused(
    gaussians_files: ExportedModel, latents: Callable[..., dict[str, np.ndarray]], gaussians: TrainedModel
) -> None:
    model: ModelProto = onnx.load(gaussians_files.generator_path)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "generator.0.bias")
    values = numpy_helper.to_array(bias).copy()
    values[0] = np.nan
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    with pytest.raises(ExportError, match="values that are not finite; nothing was written"):
        quantise(model, latents(gaussians, 64))
