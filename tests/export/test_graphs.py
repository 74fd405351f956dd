"""What is in gen.onnx and q.onnx, and what they compute."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from infosink.export.export import ExportedModel
from infosink.export.graphs import encoder_graph
from infosink.training.code_distribution import DotProduct, make_code_distribution
from infosink.training.latent import LatentSpace
from infosink.training.networks import Networks
from infosink.training.trained_model import TrainedModel

ModelAndFiles = tuple[TrainedModel, ExportedModel]
Open = Callable[[Path], onnxruntime.InferenceSession]
Run = Callable[..., dict[str, Any]]
Draw = Callable[[TrainedModel, int], dict[str, Any]]


def signature(values: list[Any]) -> dict[str, tuple[str, list[int | str]]]:
    return {value.name: (value.type, value.shape) for value in values}


def test_images_keep_the_contract(mnist_files: ExportedModel, session: Open) -> None:
    generator, encoder = session(mnist_files.generator_path), session(mnist_files.encoder_path)
    assert signature(generator.get_inputs()) == {
        "category": ("tensor(int64)", ["batch"]),
        "style": ("tensor(float)", ["batch", 2]),
        "noise": ("tensor(float)", ["batch", 88]),
    }
    assert signature(generator.get_outputs()) == {
        "sample": ("tensor(float)", ["batch", 1, 32, 32]),
        "pixels": ("tensor(uint8)", ["batch", 32, 32, 1]),
    }
    assert signature(encoder.get_inputs()) == {"sample": ("tensor(float)", ["batch", 1, 32, 32])}
    assert signature(encoder.get_outputs()) == {
        "category_probability": ("tensor(float)", ["batch", 10]),
        "style_mean": ("tensor(float)", ["batch", 2]),
        "style_std": ("tensor(float)", ["batch", 2]),
    }


def test_points_keep_the_contract_with_a_style_of_no_width(gaussians_files: ExportedModel, session: Open) -> None:
    generator, encoder = session(gaussians_files.generator_path), session(gaussians_files.encoder_path)
    assert signature(generator.get_inputs()) == {
        "category": ("tensor(int64)", ["batch"]),
        "style": ("tensor(float)", ["batch", 0]),
        "noise": ("tensor(float)", ["batch", 103]),
    }
    assert signature(generator.get_outputs()) == {"sample": ("tensor(float)", ["batch", 2])}
    assert signature(encoder.get_inputs()) == {"sample": ("tensor(float)", ["batch", 2])}
    assert signature(encoder.get_outputs()) == {
        "category_probability": ("tensor(float)", ["batch", 25]),
        "style_mean": ("tensor(float)", ["batch", 0]),
        "style_std": ("tensor(float)", ["batch", 0]),
    }


def test_files_hold_a_plain_inference_graph(model_and_files: ModelAndFiles) -> None:
    files = model_and_files[1]
    for path in (files.generator_path, files.encoder_path):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        operators = {node.op_type for node in model.graph.node}
        assert not {operator for operator in operators if operator.startswith("Random")}
        assert not operators & {"BatchNormalization", "Dropout", "Identity", "Constant", "DequantizeLinear"}
        assert (model.producer_name, model.producer_version) == ("infosink", "0.1.0")
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
        assert not model.functions
        assert model.doc_string.startswith("infosink.content_sha256 is ")
        assert not model.graph.doc_string
        assert all(node.name and not node.doc_string and not node.metadata_props for node in model.graph.node)
        assert all(entry.key.startswith("infosink.") for entry in model.metadata_props)


def test_files_quote_no_path_and_no_source(model_and_files: ModelAndFiles, gaussians_run: Path) -> None:
    files = model_and_files[1]
    for path in (files.generator_path, files.encoder_path):
        content = path.read_bytes()
        for text in (str(gaussians_run), str(path.parent), str(Path.home()) + "/", "site-packages", "stack_trace"):
            assert text.encode() not in content
        model = onnx.load(path)
        names = [name for node in model.graph.node for name in (node.name, *node.input, *node.output)]
        assert not [name for name in names if ".py" in name or "/" in name]


@pytest.mark.parametrize("count", [1, 3, 64])
def test_samples_equal_those_of_torch(model_and_files: ModelAndFiles, run: Run, latents: Draw, count: int) -> None:
    model, files = model_and_files
    inputs = latents(model, count)
    one_hot = np.eye(model.configuration.categories, dtype=np.float32)[inputs["category"]]
    z = torch.from_numpy(np.concatenate([one_hot, inputs["style"], inputs["noise"]], axis=1))
    expected = model.networks.sampling_generator(z).numpy()
    np.testing.assert_allclose(run(files.generator_path, inputs)["sample"], expected, rtol=0, atol=1e-5)


def test_posteriors_equal_those_of_torch(model_and_files: ModelAndFiles, run: Run) -> None:
    model, files = model_and_files
    samples = model.dataset.draw(20, torch.Generator().manual_seed(3))
    samples = torch.cat(
        [samples, samples.new_full((1, *samples.shape[1:]), 1), samples.new_zeros(1, *samples.shape[1:])]
    )
    scores = model.networks.code_head(model.networks.trunk(samples))
    expected = make_code_distribution(model.configuration).posterior(scores)
    outputs = run(files.encoder_path, {"sample": samples.numpy()})
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(outputs[name], value.numpy(), rtol=0, atol=1e-5, err_msg=name)


def test_pixels_are_the_rounded_samples(
    mnist: TrainedModel, mnist_files: ExportedModel, run: Run, latents: Draw
) -> None:
    outputs = run(mnist_files.generator_path, latents(mnist, 50))
    levels = np.clip(np.round((outputs["sample"] + np.float32(1)) * np.float32(127.5)), 0, 255).astype(np.uint8)
    assert len(np.unique(levels)) > 50
    np.testing.assert_array_equal(outputs["pixels"], levels.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("role", ["generator_path", "encoder_path"])
def test_a_row_alone_equals_the_row_in_a_batch(
    model_and_files: ModelAndFiles, run: Run, latents: Draw, role: str
) -> None:
    model, files = model_and_files
    inputs = latents(model, 33)
    if role == "encoder_path":
        inputs = {"sample": run(files.generator_path, inputs)["sample"]}
    together = run(getattr(files, role), inputs)
    for row in (0, 17, 32):
        alone = run(getattr(files, role), {name: value[row : row + 1] for name, value in inputs.items()})
        for name, value in alone.items():
            assert value.tobytes() == together[name][row : row + 1].tobytes(), name


def test_batch_norm_uses_the_recomputed_statistics(
    mnist_as_trained: tuple[Networks, TrainedModel], mnist_files: ExportedModel, run: Run, latents: Draw
) -> None:
    as_trained, model = mnist_as_trained
    inputs = latents(model, 16)
    outputs = run(mnist_files.generator_path, inputs)["sample"]
    z = model.configuration.latent_space.assemble(*(torch.from_numpy(value) for value in inputs.values()))
    with torch.no_grad():
        raw = copy.deepcopy(as_trained).eval().generator(z).numpy()
    assert np.abs(outputs - model.networks.generator(z).numpy()).max() < 1e-5
    assert np.abs(outputs - raw).max() > 1e-2


def test_the_averaged_generator_is_exported(
    gaussians: TrainedModel, gaussians_files: ExportedModel, run: Run, latents: Draw
) -> None:
    inputs = latents(gaussians, 16)
    z = gaussians.configuration.latent_space.assemble(*(torch.from_numpy(value) for value in inputs.values()))
    outputs = run(gaussians_files.generator_path, inputs)["sample"]
    assert gaussians.networks.averaged_generator is not None
    assert np.abs(outputs - gaussians.networks.averaged_generator(z).numpy()).max() < 1e-5
    assert np.abs(outputs - gaussians.networks.generator(z).numpy()).max() > 1e-3


def test_style_moments_hold_for_any_score(run: Run) -> None:
    """At b = 0 the closed forms are 0 / 0, and for large |b| the series overflow: neither may leak."""
    magnitudes = [0.0, 1e-30, 1e-3, 0.499999, 0.5, 0.500001, 3.0, 60.0, 1e4, 1e20, 3e38]
    scores = torch.tensor([0.0, 0.0, *magnitudes, *(-b for b in magnitudes)])
    latent_space = LatentSpace(categories=2, styles=2 * len(magnitudes), noise=1)
    code_distribution = DotProduct(2, latent_space.styles)
    networks = Networks((2,), latent_space, code_outputs=code_distribution.outputs).eval().requires_grad_(False)
    last = networks.code_head[-1]
    last.weight.zero_()
    last.bias.copy_(scores)
    graph = encoder_graph(networks, code_distribution, (2,))
    outputs = run(graph.SerializeToString(), {"sample": np.ones((3, 2), np.float32)})
    exact = code_distribution.posterior(scores.double().unsqueeze(0))
    for name in ("style_mean", "style_std"):
        np.testing.assert_allclose(outputs[name][0], getattr(exact, name)[0].numpy(), rtol=0, atol=1e-5, err_msg=name)
