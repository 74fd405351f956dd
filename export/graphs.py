"""The networks of a trained model as ONNX graphs.

    generator   (category, style, noise) -> sample, and pixels where samples are images
    encoder     sample -> (category_probability, style_mean, style_std)

Batch norm is folded into the weights before it. Only inputs, outputs, weights and nodes are kept
of what torch.onnx makes: its notes of where each node came from quote source files and paths.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import torch
from infosink.training.code_distribution import CodeDistribution
from infosink.training.latent import LatentSpace
from infosink.training.networks import Networks
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

OPSET = 18
IR_VERSION = 10
_EXAMPLE_BATCH = 3


def generator_graph(networks: Networks, latent_space: LatentSpace, sample_shape: tuple[int, ...]) -> ModelProto:
    """The generator, with the assembly of the latent before it and, for images, the grey levels after it.

    Args:
        networks: in evaluation mode.
        latent_space: of the networks.
        sample_shape: (channels, height, width) of an image, (dimensions,) of a point.

    Returns:
        A model without metadata. Inputs: category int64 (batch,), style float32 (batch, styles), noise float32
        (batch, noise). Outputs: sample float32 (batch, *sample_shape) and, for images, pixels uint8
        (batch, height, width, channels).
    """
    inputs = {
        "category": torch.zeros(_EXAMPLE_BATCH, dtype=torch.int64),
        "style": torch.zeros(_EXAMPLE_BATCH, latent_space.styles),
        "noise": torch.zeros(_EXAMPLE_BATCH, latent_space.noise),
    }
    images = len(sample_shape) == 3
    generator = _Generator(folded(networks.sampling_generator), latent_space, images=images)
    return _graph("generator", generator, inputs, ["sample", "pixels"] if images else ["sample"])


def encoder_graph(networks: Networks, code_distribution: CodeDistribution, sample_shape: tuple[int, ...]) -> ModelProto:
    """Q: the trunk, its head, and the posterior over the informative codes that the scores stand for.

    Args:
        networks: in evaluation mode.
        code_distribution: what the scores of their code head stand for.
        sample_shape: as in generator_graph.

    Returns:
        A model without metadata. Input: sample float32 (batch, *sample_shape). Outputs, float32:
        category_probability (batch, categories), style_mean and style_std (batch, styles).
    """
    inputs = {"sample": torch.zeros(_EXAMPLE_BATCH, *sample_shape)}
    encoder = _Encoder(folded(networks.trunk), folded(networks.code_head), code_distribution)
    return _graph("encoder", encoder, inputs, ["category_probability", "style_mean", "style_std"])


def pixels_of(samples: Tensor) -> Tensor:
    """The levels round((x + 1) 127.5) in 0..255: (batch, c, h, w) in [-1, 1] -> uint8 (batch, h, w, c)."""
    return ((samples + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode in which every batch norm is part of the layer before it; float64 on the way."""
    layers: list[nn.Module] = []
    for layer in copy.deepcopy(module).double().eval().children():
        if not isinstance(layer, _BatchNorm):
            layers.append(layer)
        elif isinstance(layers[-1], nn.Linear):
            layers[-1] = fuse_linear_bn_eval(layers[-1], layer)
        else:
            transposed = isinstance(layers[-1], nn.ConvTranspose2d)
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer, transposed)  # type: ignore[type-var]
    return nn.Sequential(*layers).float().eval().requires_grad_(False)


class _Generator(nn.Module):
    def __init__(self, generator: nn.Module, latent_space: LatentSpace, *, images: bool) -> None:
        super().__init__()
        self.generator, self.latent_space, self.images = generator, latent_space, images

    def forward(self, category: Tensor, style: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        sample = self.generator(self.latent_space.assemble(category, style, noise))
        return (sample, pixels_of(sample)) if self.images else (sample,)


class _Encoder(nn.Module):
    def __init__(self, trunk: nn.Module, code_head: nn.Module, code_distribution: CodeDistribution) -> None:
        super().__init__()
        self.trunk, self.code_head, self.code_distribution = trunk, code_head, code_distribution

    def forward(self, sample: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.code_distribution.posterior(self.code_head(self.trunk(sample))))


def _graph(name: str, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> ModelProto:
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101  (None only comes from the older exporter)
    return _plain(program.model_proto.graph, name)


def _plain(traced: GraphProto, name: str) -> ModelProto:
    """The same graph with short names and nothing but inputs, outputs, weights and nodes."""
    renamed = {value.name: value.name for value in (*traced.input, *traced.output)}
    count: Counter[str] = Counter()

    def numbered(kind: str) -> str:
        count[kind] += 1
        return f"{kind}_{count[kind]}"

    constants: list[TensorProto] = []
    for tensor in traced.initializer:
        constant = TensorProto()
        constant.CopyFrom(tensor)
        is_weight = "." in tensor.name
        constant.name = renamed[tensor.name] = tensor.name if is_weight else numbered("constant")
        constants.append(constant)
    nodes: list[NodeProto] = []
    for node in traced.node:
        node_name = numbered(node.op_type)
        for place, output in enumerate(node.output):
            renamed.setdefault(output, f"{node_name}_{place}" if place else node_name)
        short = NodeProto(op_type=node.op_type, domain=node.domain, name=node_name)
        short.input.extend(renamed[value] if value else "" for value in node.input)
        short.output.extend(renamed[value] for value in node.output)
        short.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
        nodes.append(short)
    graph = helper.make_graph(
        nodes, name, [_described(value) for value in traced.input], [_described(value) for value in traced.output],
        constants,
    )  # fmt: skip
    return helper.make_model(
        graph,
        producer_name="infosink",
        producer_version=version("infosink"),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def _described(value: ValueInfoProto) -> ValueInfoProto:
    tensor = value.type.tensor_type
    shape = [dimension.dim_value for dimension in tensor.shape.dim[1:]]
    return helper.make_tensor_value_info(value.name, tensor.elem_type, ["batch", *shape])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not installed and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
