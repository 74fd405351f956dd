"""How a model file stores its weights: perhaps narrow, and widened to float32 again before anything is computed.

    float32   as they are
    float16   widened by Cast
    int8      codes -127..127, widened by Cast, and Mul by a float32 scale for each output channel:
              code = round(weight / scale), scale = max |weight| / 127 over the channel

All inputs of what widens are constant, so that onnxruntime does it once, when it loads the file. From then on the graph
is that of float32 weights, and a row keeps its bytes at every batch size; DequantizeLinear would stay in the graph.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from infosink.training.networks import Networks
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from .errors import ExportError
from .graphs import folded

Weights = Literal["float32", "float16", "int8"]

FEWEST_NARROWED = 4096
"""Elements of a weight worth narrowing. First and last layers have fewer, and matter most: were they int8 too, a
probability of the MNIST network would move by up to 0.14 and not 0.006."""
_LARGEST_CODE = 127
_LARGEST_WEIGHT = {"float16": float(np.finfo(np.float16).max), "int8": float(np.finfo(np.float32).max)}
_CHANNEL_AXES: dict[type[nn.Module], int] = {nn.Linear: 0, nn.Conv2d: 0, nn.ConvTranspose2d: 1}

Array = npt.NDArray[Any]


def rounded_networks(networks: Networks, weights: Weights) -> Networks:
    """The networks that a file with such weights holds: what it must compute, and all that its storage loses.

    Args:
        networks: in evaluation mode.
        weights: how they are stored.

    Returns:
        The networks themselves where nothing is lost; otherwise a copy of which generator, trunk and code head have
        their batch norm folded and their large weights rounded.

    Raises:
        ExportError: a weight is too large, or not a number.
    """
    if weights == "float32":
        return networks
    rounded = copy.deepcopy(networks)
    # The generator that samples are drawn with, averaged or not.
    rounded.averaged_generator = folded(networks.sampling_generator)
    rounded.trunk, rounded.code_head = folded(networks.trunk), folded(networks.code_head)
    for part in (rounded.averaged_generator, rounded.trunk, rounded.code_head):
        for layer in part.children():
            axis, weight = _CHANNEL_AXES.get(type(layer)), getattr(layer, "weight", None)
            if axis is not None and isinstance(weight, Tensor) and weight.numel() >= FEWEST_NARROWED:
                weight.copy_(torch.from_numpy(_widened(_narrowed(weight.numpy(), weights, axis))))
    return rounded


def store_weights(model: ModelProto, weights: Weights) -> None:
    """Stores the large weights of a graph, changing it in place.

    Args:
        model: see graphs; weights are float32.
        weights: how to store them.

    Raises:
        ExportError: a weight is too large, or not a number.
    """
    if weights == "float32":
        return
    graph = model.graph
    axes = {node.input[1]: axis for node in graph.node if (axis := channel_axis(node)) is not None}
    constants: list[TensorProto] = []
    widening: list[NodeProto] = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name not in axes or values.size < FEWEST_NARROWED:
            constants.append(tensor)
            continue
        # What widens gives the weight its old name back, by which the graph knows it.
        name, stored = tensor.name, f"{tensor.name}.{weights}"
        codes, *scale = _narrowed(values, weights, axes[name])
        constants.append(numpy_helper.from_array(codes, stored))
        wide = f"{name}.float32" if scale else name
        widening.append(helper.make_node("Cast", [stored], [wide], name=f"Cast_{name}", to=TensorProto.FLOAT))
        for each in scale:
            constants.append(numpy_helper.from_array(each, f"{name}.scale"))
            widening.append(helper.make_node("Mul", [wide, f"{name}.scale"], [name], name=f"Mul_{name}"))
    nodes = [*widening, *graph.node]
    graph.CopyFrom(helper.make_graph(nodes, graph.name, graph.input, graph.output, constants))


def channel_axis(node: NodeProto) -> int | None:
    """Which axis of a node's second input are its output channels; None where that is no weight."""
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if transposed else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(node.op_type)


def _narrowed(values: Array, weights: Weights, axis: int) -> list[Array]:
    """Half-precision values; or int8 codes, and their float32 scales with all other axes of length 1."""
    largest = float(np.abs(values).max())
    if not largest <= _LARGEST_WEIGHT[weights]:
        raise ExportError(
            f"a weight is {largest:.3g} and {weights} holds up to {_LARGEST_WEIGHT[weights]:.3g}; nothing was written: "
            "see that the weights are finite, and use --weights float32"
        )
    if weights == "float16":
        return [values.astype(np.float16)]
    others = tuple(each for each in range(values.ndim) if each != axis % values.ndim)
    scale = np.abs(values).max(axis=others, keepdims=True) / np.float32(_LARGEST_CODE)
    scale[scale == 0] = 1  # a channel without weight
    codes = np.rint(values / scale).clip(-_LARGEST_CODE, _LARGEST_CODE)
    return [codes.astype(np.int8), scale]


def _widened(narrow: list[Array]) -> Array:
    """What Cast and Mul make of it, in float32 like theirs."""
    codes, *scale = narrow
    wide = codes.astype(np.float32)
    return wide * scale[0] if scale else wide
