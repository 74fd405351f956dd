"""A graph whose large layers multiply integers of eight bits.

    x ≈ s_x (code - z_x)       code = round(x / s_x) + z_x, 0..255, s_x and z_x from the range of x over samples
    w ≈ s_c code               code = round(w / s_c), -64..64, s_c = max |w| / 64 over an output channel
    layer(x, w, b) = s_x s_c (layer(codes) + round(b / (s_x s_c))), rounded in the same way for Conv alone

written as ONNX's QuantizeLinear and DequantizeLinear around the layer, which onnxruntime makes one integer operation
of. Every scale is a constant, and sums of integers are exact, so that a row keeps its bytes at every batch size. The
scale of a DynamicQuantizeLinear is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from infosink.training.trained_model import TrainedModel
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .errors import ExportError
from .graph_runner import GraphRunner, generator_inputs
from .weights import FEWEST_NARROWED, channel_axis

Precision = Literal["float32", "int8"]
Array = npt.NDArray[Any]

_LARGEST_CODE = 64
"""Half of what eight bits hold. Processors without instructions for it add two products of 255 and a weight's code in
sixteen bits, which would saturate beyond 64: another sample from another machine, and a wrong one."""
_SAMPLES = 512
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_QUANTISED = frozenset({"Conv", "Gemm"})
"""onnxruntime has no integer operation for ConvTranspose."""


@torch.no_grad()
def quantise_both(model: TrainedModel, generator: ModelProto, encoder: ModelProto) -> None:
    """Makes the large layers of a model's graphs compute in int8, changing both in place; see quantise.

    Ranges are those over latents from the prior, and over real samples beside generated ones.

    Raises:
        ExportError: see quantise.
    """
    random = torch.Generator().manual_seed(2)
    latent_space = model.configuration.latent_space
    latents = latent_space.draw(_SAMPLES, random)
    samples = torch.cat([model.dataset.draw(_SAMPLES, random), model.networks.sampling_generator(latents)])
    quantise(generator, generator_inputs(latents, latent_space))
    quantise(encoder, {"sample": samples.numpy()})


def quantise(model: ModelProto, samples: Mapping[str, Array]) -> None:
    """Makes the large layers of a graph but the first compute in int8, changing it in place.

    The first layer of a generator reads codes and noise: 256 steps would be few for a style.

    Args:
        model: see graphs; weights are float32.
        samples: inputs like those that it will be given.

    Raises:
        ExportError: no layer is large enough, or an activation is not finite.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in _LAYERS and node.input[1] in constants]
    chosen = {node.name: node for node in layers[1:] if _is_quantised(node, constants)}
    if not chosen:
        raise ExportError(f"the {graph.name} has no layer that int8 would speed up: leave --precision int8 out")
    ranges = _ranges(model, {name for node in chosen.values() for name in (node.input[0], node.output[0])}, samples)
    nodes: list[NodeProto] = []
    codes: list[TensorProto] = []
    for node in graph.node:
        nodes.extend(_integer_layer(node, constants, ranges, codes) if node.name in chosen else [node])
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    graph.CopyFrom(helper.make_graph(nodes, graph.name, graph.input, graph.output, [*kept, *codes]))


def _is_quantised(node: NodeProto, constants: Mapping[str, Array]) -> bool:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return (
        node.op_type in _QUANTISED
        and constants[node.input[1]].size >= FEWEST_NARROWED
        and len(node.input) == 3
        and node.input[2] in constants
        and (attributes.get("alpha", 1), attributes.get("beta", 1), attributes.get("transA", 0)) == (1, 1, 0)
    )


def _ranges(model: ModelProto, names: set[str], samples: Mapping[str, Array]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each tensor over samples, 0 between them."""
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(names))
    outputs = GraphRunner(f"the {model.graph.name}", watched).run(samples)
    if not all(np.isfinite(outputs[name]).all() for name in names):
        raise ExportError(f"the {model.graph.name} gives values that are not finite; nothing was written")
    return {name: (min(0.0, float(outputs[name].min())), max(0.0, float(outputs[name].max()))) for name in names}


def _integer_layer(
    node: NodeProto, constants: Mapping[str, Array], ranges: Mapping[str, tuple[float, float]], codes: list[TensorProto]
) -> Iterator[NodeProto]:
    """The nodes that compute a layer in int8; their constants are appended to `codes`."""
    read, weight, bias = node.input
    prefix = node.name

    def constant(name: str, values: Array) -> str:
        codes.append(numpy_helper.from_array(values, f"{prefix}.{name}"))
        return f"{prefix}.{name}"

    def rounded(value: str, result: str, scale: str, zero: str) -> Iterator[NodeProto]:
        yield helper.make_node("QuantizeLinear", [value, scale, zero], [f"{result}.codes"], name=f"Quantize_{result}")
        yield helper.make_node(
            "DequantizeLinear", [f"{result}.codes", scale, zero], [result], name=f"Dequantize_{result}"
        )

    def step(name: str, value: str) -> tuple[np.float32, str, str]:
        low, high = ranges[value]
        scale = np.float32((high - low) / 255 or 1)
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
        return scale, constant(f"{name}.scale", np.array(scale)), constant(f"{name}.zero", np.array(zero))

    axis = channel_axis(node) or 0
    values = constants[weight]
    others = tuple(each for each in range(values.ndim) if each != axis)
    sizes = np.abs(values).max(axis=others, keepdims=True) / np.float32(_LARGEST_CODE)
    sizes[sizes == 0] = 1  # a channel without weight
    scale, *of_read = step("input", read)
    yield from rounded(read, f"{prefix}.input", *of_read)
    whole = constant("weight.codes", np.rint(values / sizes).astype(np.int8))
    of_weight = constant("weight.scale", sizes.reshape(-1)), constant("weight.zero", np.zeros(sizes.size, np.int8))
    yield helper.make_node(
        "DequantizeLinear", [whole, *of_weight], [f"{prefix}.weight"], name=f"Dequantize_{prefix}.weight", axis=axis
    )
    of_sum = scale * sizes.reshape(-1)
    largest = np.iinfo(np.int32).max // 2
    sums = constant("bias.codes", np.rint(constants[bias] / of_sum).clip(-largest, largest).astype(np.int32))
    of_bias = constant("bias.scale", of_sum)
    yield helper.make_node(
        "DequantizeLinear", [sums, of_bias], [f"{prefix}.bias"], name=f"Dequantize_{prefix}.bias", axis=0
    )
    layer = NodeProto()
    layer.CopyFrom(node)
    layer.input[:] = [f"{prefix}.input", f"{prefix}.weight", f"{prefix}.bias"]
    if node.op_type == "Gemm":
        yield layer
        return
    # onnxruntime takes a Conv for one of integers only if its output is rounded too.
    output = node.output[0]
    layer.output[:] = [f"{prefix}.output.wide"]
    yield layer
    _, *of_output = step("output", output)
    yield from rounded(f"{prefix}.output.wide", output, *of_output)
