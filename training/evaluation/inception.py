"""The Fréchet distance in the features of Inception v3 (Heusel et al. 2017), for those who bring its weights.

For comparison with the literature on natural images; digits are far from what Inception was trained on.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .quality import frechet_distance

_BATCH = 50


class InceptionError(Exception):
    """Features that cannot be had; the message says why and what to do."""


def inception_distance(
    real: Tensor, generated: Tensor, weights: Path, progress: Callable[[str, float], None] | None = None
) -> float:
    """The FID between images, as torch-fidelity computes it.

    Levels are rounded to 0..255, grey is repeated to RGB, and the 2048 features are those of TensorFlow's Inception of
    2015-12-05, resized as TensorFlow 1 did. Fewer than some thousand images bias it far upwards; compare
    only numbers from equally many.

    Args:
        real: (n, 1 or 3, height, width) in [-1, 1], in the native frame, n ≥ 2.
        generated: (m, ...) likewise.
        weights: the file of weights that torch-fidelity would download; nothing is downloaded here.
        progress: told what is done and the share of it that is.

    Raises:
        InceptionError: torch-fidelity is not installed, or the weights cannot be read or are not Inception's.
        ValueError: there are fewer than two images of a kind.
    """
    network = _network(_read_weights(weights), weights)
    count, done = len(real) + len(generated), 0
    features: tuple[list[Tensor], list[Tensor]] = ([], [])
    for images, found in zip((real, generated), features, strict=True):
        for batch in torch.split(images, _BATCH):
            with torch.no_grad():
                (activations,) = network(_rgb_levels(batch))
            found.append(activations)
            done += len(batch)
            if progress is not None:
                progress("Inception features", done / count)
    return frechet_distance(torch.cat(features[0]), torch.cat(features[1]))


def _read_weights(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InceptionError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # damaged files, and those that hold code, are met with exceptions of many kinds
        raise InceptionError(f"{path} does not hold weights and nothing else, and is not used") from error


def _network(weights: object, path: Path) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # the latter where torch and torchvision are of different builds
        raise InceptionError(
            "Inception features need torch-fidelity, and a torchvision that fits torch: "
            f"install them with pip install 'infosink[inception]' ({error})"
        ) from error
    # The extractor would unpickle anything in the file it is given: it gets the tensors that were read, written anew.
    written_anew = io.BytesIO()
    torch.save(weights, written_anew)
    written_anew.seek(0)
    try:
        network: nn.Module = FeatureExtractorInceptionV3("inception", ["2048"], written_anew)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InceptionError(
            f"{path} does not fit Inception v3: bring the file that torch-fidelity names in its documentation"
        ) from error
    return network


def _rgb_levels(images: Tensor) -> Tensor:
    """Levels 0..255 as the network wants them: [-1, 1] (n, c, h, w) -> uint8 (n, 3, h, w)."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1)
