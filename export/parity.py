"""Whether the exported graphs compute what PyTorch computes: the gate that an export must pass.

Both graphs run in onnxruntime on the CPU at several batch sizes, over latents and samples that
reach the ends of their ranges, and are compared with the networks themselves.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from infosink.training.code_distribution import CodePosterior, make_code_distribution
from infosink.training.latent import LatentSpace
from infosink.training.networks import Networks
from infosink.training.trained_model import TrainedModel
from onnx import ModelProto
from torch import Tensor

from .errors import ExportError
from .graph_runner import RUNTIME_VERSION, GraphRunner, generator_inputs
from .graphs import pixels_of

TOLERANCE = 1e-5
LARGEST_TOLERANCE = 1e-3
PIXEL_TOLERANCE = 1
_ROUNDING_FACTOR = 4
TOLERANCE_RULE = (
    f"max({TOLERANCE:g}, {_ROUNDING_FACTOR} x the float32 error of torch itself), at most {LARGEST_TOLERANCE:g}; "
    f"pixels: {PIXEL_TOLERANCE} level"
)
_RANDOM_LATENTS = 128
_RANDOM_SAMPLES = 64

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """The largest differences from PyTorch found.

    Attributes:
        sample: of gen.onnx's samples, over latents drawn from the prior.
        edge_sample: of its samples at the ends of the latents' ranges, see edge_latents.
        pixels: of its pixels over both, in levels; None for points.
        category_probability, style_mean, style_std: of q.onnx's outputs, over real samples,
            generated ones, and those that are -1 or 1 everywhere.
        tolerance: how large each might have been, by name.
    """

    sample: float
    edge_sample: float
    pixels: int | None
    category_probability: float
    style_mean: float
    style_std: float
    tolerance: Mapping[str, float]

    @property
    def differences(self) -> dict[str, float]:
        """The differences by name, in the order of their names."""
        return {name: getattr(self, name) for name in sorted(self.tolerance)}

    def to_mapping(self) -> dict[str, Any]:
        """The differences, the tolerance of each and the rule it follows, for JSON; two significant digits."""
        tolerance = dict(sorted(self.tolerance.items()))
        return _rounded(self.differences) | {"tolerance": _rounded(tolerance), "tolerance_rule": TOLERANCE_RULE}

    def lines(self) -> Iterator[str]:
        """The differences for a person to read; where a tolerance was relaxed, that and the rule."""
        yield f"Largest differences from PyTorch: {_listed(self.differences)}"
        floats = {name: value for name, value in sorted(self.tolerance.items()) if name != "pixels"}
        if relaxed := {name: value for name, value in floats.items() if value > TOLERANCE}:
            yield f"Tolerance relaxed: {_listed(relaxed)}, by the rule {TOLERANCE_RULE}"


def measure_parity(model: TrainedModel, generator: ModelProto, encoder: ModelProto) -> Parity:
    """Compares both graphs with the networks they were made from.

    A float32 output may differ from PyTorch's by

        tolerance = min(max(1e-5, 4 max |PyTorch in float32 - PyTorch in float64|), 1e-3)

    where the inner maximum is over that output's values, so that networks which magnify float32 rounding are held to
    what float32 can give. Pixels may differ by one level.

    Args:
        model: the networks and their data.
        generator: see graphs.generator_graph.
        encoder: see graphs.encoder_graph.

    Raises:
        ExportError: onnxruntime cannot load a graph, an output differs from PyTorch by more than it may, or a row
            alone differs from the same row inside a batch.
    """
    latent_space = model.configuration.latent_space
    code_distribution = make_code_distribution(model.configuration)
    random = torch.Generator().manual_seed(0)
    prior = latent_space.draw(_RANDOM_LATENTS, random)
    edges = edge_latents(latent_space)
    exact = copy.deepcopy(model.networks).double()

    def generated(networks: Networks, latents: Tensor) -> Tensor:
        return networks.sampling_generator(latents)  # type: ignore[no-any-return]

    def posterior(networks: Networks, samples: Tensor) -> CodePosterior:
        return code_distribution.posterior(networks.code_head(networks.trunk(samples)))

    def both(function: Callable[[Networks, Tensor], Any], inputs: Tensor) -> tuple[Any, Any]:
        with torch.no_grad():
            return function(model.networks, inputs), function(exact, inputs.double())

    found: dict[str, Any] = {"pixels": None}
    tolerance: dict[str, float] = {}
    run = GraphRunner("gen.onnx", generator).checked
    for figure, latents in {"sample": prior, "edge_sample": edges}.items():
        outputs = run(generator_inputs(latents, latent_space))
        reference, exact_reference = both(generated, latents)
        tolerance[figure] = _tolerance(reference, exact_reference)
        found[figure] = _difference("gen.onnx", "sample", outputs, reference, tolerance[figure])
        if "pixels" in outputs:
            tolerance["pixels"] = PIXEL_TOLERANCE
            found["pixels"] = max(found["pixels"] or 0, _pixel_difference(outputs, reference))

    real = model.dataset.draw(_RANDOM_SAMPLES, random)
    ends = torch.tensor([-1.0, 1.0]).reshape(-1, *[1] * (real.dim() - 1)).expand(2, *real.shape[1:])
    samples = torch.cat([real, both(generated, prior[:_RANDOM_SAMPLES])[0], ends])
    outputs = GraphRunner("q.onnx", encoder).checked({"sample": samples.numpy()})
    for figure, reference, exact_reference in zip(CodePosterior._fields, *both(posterior, samples), strict=True):
        tolerance[figure] = _tolerance(reference, exact_reference)
        found[figure] = _difference("q.onnx", figure, outputs, reference, tolerance[figure])
    return Parity(**found, tolerance=tolerance)


def edge_latents(latent_space: LatentSpace) -> Tensor:
    """Every category with every style at -1, 0 or 1 and all noise at -6, 0 or 6: (9 categories, dimension)."""
    grid = torch.cartesian_prod(
        torch.arange(latent_space.categories), torch.tensor([-1, 0, 1]), torch.tensor([-6, 0, 6])
    )
    style = grid[:, 1:2].float().expand(-1, latent_space.styles)
    noise = grid[:, 2:3].float().expand(-1, latent_space.noise)
    return latent_space.assemble(grid[:, 0], style, noise)


def _tolerance(reference: Tensor, exact: Tensor) -> float:
    """What TOLERANCE_RULE allows where PyTorch gives `reference` in float32 and `exact` in float64."""
    rounding = float(np.max(np.abs(reference.double().numpy() - exact.numpy()), initial=0))
    return min(max(TOLERANCE, _ROUNDING_FACTOR * rounding), LARGEST_TOLERANCE)


def _difference(file: str, output: str, outputs: Mapping[str, Array], reference: Tensor, tolerance: float) -> float:
    """The largest difference of an output from PyTorch's float32 result; NaN where either is."""
    found = float(np.max(np.abs(outputs[output] - reference.numpy()), initial=0))
    _require(file, output, found, tolerance)
    return found


def _pixel_difference(outputs: Mapping[str, Array], reference: Tensor) -> int:
    levels = pixels_of(reference).numpy().astype(int)
    found = int(np.max(np.abs(outputs["pixels"].astype(int) - levels)))
    _require("gen.onnx", "pixels", found, PIXEL_TOLERANCE)
    return found


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value if isinstance(value, int) else float(f"{value:.1e}") for name, value in values.items()}


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in _rounded(values).items())


def _require(file: str, output: str, found: float, tolerance: float) -> None:
    if math.isnan(found) or found > tolerance:
        raise ExportError(
            f"{output} of {file} differs from PyTorch by {found:.2g}, more than {tolerance:.2g}; nothing was written: "
            f"see that the weights are finite, and try other versions than torch {torch.__version__} and "
            f"onnxruntime {RUNTIME_VERSION}"
        )
