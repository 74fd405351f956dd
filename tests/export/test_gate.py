"""What an export must pass: agreement with PyTorch, and contents that can be given away."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from infosink.export.contents import check_contents
from infosink.export.errors import ExportError
from infosink.export.export import ExportedModel
from infosink.export.parity import TOLERANCE_RULE, edge_latents, measure_parity
from infosink.training.latent import LatentSpace
from infosink.training.trained_model import TrainedModel
from onnx import ModelProto, helper, numpy_helper

ELSEWHERE = Path("/elsewhere")


def perturbed(model: ModelProto, weight: str, by: float) -> ModelProto:
    """A copy with one entry of one weight changed."""
    changed = copy.deepcopy(model)
    (tensor,) = (tensor for tensor in changed.graph.initializer if tensor.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    return changed


@pytest.fixture(scope="module")
def graphs(gaussians_files: ExportedModel) -> tuple[ModelProto, ModelProto]:
    return onnx.load(gaussians_files.generator_path), onnx.load(gaussians_files.encoder_path)


def test_honest_graphs_pass(gaussians: TrainedModel, graphs: tuple[ModelProto, ModelProto]) -> None:
    parity = measure_parity(gaussians, *graphs)
    assert 0 < parity.sample <= 1e-5
    assert parity.pixels is None
    assert 0 < parity.category_probability <= 1e-5


def test_images_pass_within_a_level(mnist_files: ExportedModel) -> None:
    assert 0 < mnist_files.parity.sample <= 1e-5
    assert mnist_files.parity.pixels in (0, 1)
    assert 0 < mnist_files.parity.style_mean <= 1e-5
    assert 0 < mnist_files.parity.style_std <= 1e-5


def test_a_tolerance_is_relaxed_by_the_rounding_of_torch_and_says_so(
    gaussians: TrainedModel, graphs: tuple[ModelProto, ModelProto]
) -> None:
    """Samples 64 times as large, by a power of two: torch's own rounding grows by as much, and nothing else does."""
    assert [line.split(":")[0] for line in measure_parity(gaussians, *graphs).lines()] == [
        "Largest differences from PyTorch"
    ]
    generator, networks = copy.deepcopy(graphs[0]), copy.deepcopy(gaussians.networks)
    for tensor in generator.graph.initializer:
        if tensor.name in ("generator.6.weight", "generator.6.bias"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 64, tensor.name))
    for parameter in networks.sampling_generator[-1].parameters():
        parameter.mul_(64)
    parity = measure_parity(dataclasses.replace(gaussians, networks=networks), generator, graphs[1])
    relaxed = parity.tolerance["edge_sample"]
    assert 1e-5 < parity.edge_sample <= relaxed < 1e-3
    assert parity.tolerance["category_probability"] == 1e-5
    assert json.loads(json.dumps(parity.to_mapping()))["tolerance"]["edge_sample"] == pytest.approx(relaxed, rel=0.05)
    _, line = parity.lines()
    assert line.startswith(f"Tolerance relaxed: edge_sample {float(f'{relaxed:.1e}'):g}, ")
    assert line.endswith(f", by the rule {TOLERANCE_RULE}")


def test_a_perturbed_generator_is_stopped(gaussians: TrainedModel, graphs: tuple[ModelProto, ModelProto]) -> None:
    generator, encoder = graphs
    with pytest.raises(ExportError, match=r"sample of gen\.onnx differs from PyTorch by 0\.00\d+, more than 1e-05"):
        measure_parity(gaussians, perturbed(generator, "generator.6.bias", 1e-3), encoder)


def test_a_generator_wrong_for_one_category_only_is_stopped(
    gaussians: TrainedModel, graphs: tuple[ModelProto, ModelProto]
) -> None:
    generator, encoder = graphs
    with pytest.raises(ExportError, match="sample of gen"):
        measure_parity(gaussians, perturbed(generator, "generator.0.weight", 0.5), encoder)


def test_a_perturbed_encoder_is_stopped(gaussians: TrainedModel, graphs: tuple[ModelProto, ModelProto]) -> None:
    generator, encoder = graphs
    with pytest.raises(ExportError, match=r"category_probability of q\.onnx differs"):
        measure_parity(gaussians, generator, perturbed(encoder, "code_head.2.bias", 1e-2))


def test_a_graph_that_mixes_the_rows_of_a_batch_is_stopped(
    gaussians: TrainedModel, graphs: tuple[ModelProto, ModelProto]
) -> None:
    """Each sample is moved by a millionth of its batch's mean: far less than the tolerance."""
    generator, encoder = copy.deepcopy(graphs[0]), graphs[1]
    generator.graph.node[-1].output[0] = "alone"
    generator.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows"))
    generator.graph.initializer.append(numpy_helper.from_array(np.array(1e-6, np.float32), "share"))
    generator.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["alone", "rows"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "share"], ["shift"]),
            helper.make_node("Add", ["alone", "shift"], ["sample"]),
        ]
    )
    with pytest.raises(ExportError, match=r"gen\.onnx gives another sample in a batch of 2 than for a row alone"):
        measure_parity(gaussians, generator, encoder)


def test_the_edges_of_the_latents_are_covered() -> None:
    latents = edge_latents(LatentSpace(categories=3, styles=2, noise=4))
    assert latents.shape == (27, 9)
    assert torch.equal(latents[:, :3].sum(0), torch.full((3,), 9.0))
    assert {tuple(style) for style in latents[:, 3:5].tolist()} == {(-1, -1), (0, 0), (1, 1)}
    assert {tuple(noise) for noise in latents[:, 5:].tolist()} == {(-6,) * 4, (0,) * 4, (6,) * 4}


def add_random(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("RandomUniform", [], ["unused"], name="r", shape=[1]))


def add_dynamic(model: ModelProto) -> None:
    outputs = ["codes", "scale", "zero"]
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["sample"], outputs, name="d"))


def add_foreign(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("example", 1))
    model.graph.node.append(helper.make_node("Special", ["sample"], ["unused"], name="s", domain="example"))


def add_stack_trace(model: ModelProto) -> None:
    model.graph.node[0].doc_string = 'File "networks.py", line 20'


def add_home(model: ModelProto) -> None:
    model.graph.node[0].metadata_props.add(key="from", value=str(Path.home() / "x"))


def add_directory(model: ModelProto) -> None:
    model.metadata_props.add(key="infosink.run", value=str(ELSEWHERE / "run"))


def add_invalid(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "missing"


@pytest.mark.parametrize(
    ("alter", "complaint"),
    [
        (add_random, r"draws random numbers \(RandomUniform\)"),
        (add_dynamic, r"other bytes in another batch \(DynamicQuantizeLinear\)"),
        (add_foreign, r"operators beyond ONNX's own \(Special\)"),
        (add_stack_trace, r"would give away '\.py'"),
        (add_home, "would give away"),
        (add_directory, "would give away '/elsewhere'"),
        (add_invalid, "is not valid ONNX"),
    ],
)
def test_a_file_that_must_not_be_given_away_is_stopped(
    graphs: tuple[ModelProto, ModelProto], alter: Callable[[ModelProto], None], complaint: str
) -> None:
    check_contents(graphs[0], ELSEWHERE)
    model = copy.deepcopy(graphs[0])
    alter(model)
    with pytest.raises(ExportError, match=complaint):
        check_contents(model, ELSEWHERE)


def test_weights_may_spell_anything(graphs: tuple[ModelProto, ModelProto]) -> None:
    model = copy.deepcopy(graphs[0])
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "generator.0.bias")
    values = np.frombuffer((b".py " + bias.raw_data[4:]), np.float32)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    check_contents(model, ELSEWHERE)
