"""A Q whose category does not change under small deformations of the image.

Past the paper: pixel costs alone confuse digits of one shape, and a category that must survive
rotation, shear, scale and shift does not. The term changes Q's loss (31) only, and by data
processing bounds from below the information that Q's category carries about the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .datasets import Dataset

MAX_ROTATION = 0.4  # radians
MAX_SHEAR = 0.35
MAX_LOG_SCALE = 0.2
MAX_LOG_ASPECT = 0.1
MAX_SHIFT = 0.12  # of half the image, 1.9 pixels of 32
_SMALLEST_PROBABILITY = 1e-8


def deform(images: Tensor, random: torch.Generator, background: float) -> Tensor:
    """A random affine view Ty of each image: small rotation, shear, scale, aspect and shift.

    Args:
        images: (batch, channels, height, width).
        random: on the images' device.
        background: the value that comes in from outside the frame.

    Returns:
        Images of the same shape, differentiable in `images`.
    """
    count, device = len(images), images.device

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, generator=random, device=device) * 2 - 1) * limit

    angle, shear = uniform(MAX_ROTATION), uniform(MAX_SHEAR)
    scale, aspect = uniform(MAX_LOG_SCALE).exp(), uniform(MAX_LOG_ASPECT).exp()
    shift = torch.stack([uniform(MAX_SHIFT), uniform(MAX_SHIFT)], dim=1)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    zero = torch.zeros_like(scale)
    stretch = torch.stack([scale * aspect, shear, zero, scale / aspect], dim=1).view(-1, 2, 2)
    transformation = torch.cat([rotation @ stretch, shift[:, :, None]], dim=2)  # (B, 2, 3)
    grid = F.affine_grid(transformation, list(images.shape), align_corners=False)
    return F.grid_sample(images - background, grid, align_corners=False) + background


def background_of(dataset: Dataset) -> float:
    """The value of the images' background, which a deformation brings in from outside the frame; 0 of points."""
    return dataset.frame.background / 127.5 - 1 if dataset.frame else 0.0


def invariance_information(scores: Tensor, view_scores: Tensor, balance: float = 1.0) -> Tensor:
    """The mutual information I_τ = KL(P | p⊗p) between the category of y and that of its view Ty, in nats.

        P = sym mean_j q(·|y_j) q(·|Ty_j)ᵀ,   q = softmax(scores),   p = P 1

    Args:
        scores: of y_j, (batch, categories).
        view_scores: of Ty_j, (batch, categories).
        balance: β of I_τ + 2 (β − 1) H(p), H the entropy: above 1 it favours categories of equal size
            (Ji, Henriques and Vedaldi 2019).

    Returns:
        A scalar, at β = 1 in [0, log categories].
    """
    joint = torch.softmax(scores, 1).T @ torch.softmax(view_scores, 1) / len(scores)  # (K, B) @ (B, K) -> (K, K)
    joint = ((joint + joint.T) / 2).clamp_min(_SMALLEST_PROBABILITY)
    joint = joint / joint.sum()
    log_marginal = balance * joint.sum(dim=1).log()
    return (joint * (joint.log() - log_marginal[:, None] - log_marginal[None, :])).sum()
