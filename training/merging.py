"""Categories as unions of many small clusters, by what the clusters have in common.

Ten clusters learned at once are often two digits in one and one digit in two, and the information
that they hold tells so little of it that no restart helps. Fifty small clusters are seldom
impure; which of them belong together is then a question of 50 x 50 numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .datasets import Dataset
from .ground_cost import GroundCost
from .invariance import deform
from .networks import Networks, as_in_inference

_NEIGHBOURS = 3
_BATCH = 500


@torch.no_grad()
def cluster_joint(
    networks: Networks,
    dataset: Dataset,
    ground_cost: GroundCost,
    background: float,
    random: torch.Generator,
    *,
    count: int,
) -> Tensor:
    """How often two clusters stand for one thing: the joint law of the clusters of related images.

        ½ mean_j q̃(·|y_j) q̃(·|Ty_j)ᵀ + ½ mean_j mean_{i ∈ N(j)} q̃(·|y_j) q̃(·|y_i)ᵀ

    Related are an image and its deformation, and an image and its 3 nearest neighbours N(j) in
    the ground cost among all that were drawn. Either relation alone has blind spots: a seven with a bar
    deforms into what Q takes for a two, yet costs little to turn into a seven without.

    Args:
        networks: with an over-clustering head; their running statistics are used, and kept.
        dataset: images, on the networks' device.
        ground_cost: c.
        background: the value that a deformation brings in from outside the frame.
        random: on the networks' device.
        count: how many images to draw, at least 4.

    Returns:
        (clusters, clusters), float64 on the CPU, summing to 1.
    """
    clusters = networks.over_clustering
    if clusters is None:
        raise ValueError("networks without an over-clustering head have no clusters to merge")
    images = dataset.draw(count, random)
    views = deform(images, random, background)
    with as_in_inference(networks):
        q, q_view = (
            torch.cat([torch.softmax(clusters(networks.trunk(block)), dim=1) for block in torch.split(each, _BATCH)])
            for each in (images, views)
        )
    neighbours = torch.cat([_neighbours(block, images, ground_cost) for block in torch.split(images, _BATCH)])
    joint = (q.T @ q_view + q.T @ q[neighbours].mean(dim=1)) / count  # (C, n) @ (n, C) -> (C, C), each
    return (joint / joint.sum()).double().cpu()


def merge_clusters(joint: Tensor, categories: int) -> Tensor:
    """Merges clusters into categories that keep as much of their mutual information as can be.

    Maximises I(k; k') for k the category of a cluster, under (k, k') ~ Aᵀ P A with P the joint law
    and A the assignment: greedily, merging the pair that costs least until `categories` are left
    (the agglomerative information bottleneck of Slonim and Tishby 1999), then moving single clusters as
    long as that gains.

    Args:
        joint: P, (clusters, clusters), not negative and not all 0; only its symmetric part counts.
        categories: K, at most the number of clusters.

    Returns:
        The category of each cluster, (clusters,) int64 on the CPU; every category has one.

    Raises:
        ValueError: there are fewer clusters than categories.
    """
    clusters = len(joint)
    if clusters < categories:
        raise ValueError(f"{clusters} clusters cannot be merged into {categories} categories: bring at least as many")
    joint = joint.double().cpu()
    joint = (joint + joint.T) / (2 * joint.sum())
    return _move(joint, _agglomerate(joint, categories), categories)


def best_order(overlap: Tensor) -> Tensor:
    """The permutation that renames rows to the columns they overlap with most: Σ_k overlap[k, order[k]] is largest.

    By exchanging pairs of names as long as that gains, which for a few categories that overlap clearly is the optimum.

    Args:
        overlap: (categories, categories).

    Returns:
        The new name of each row, (categories,) int64 on the CPU.
    """
    overlap = overlap.double().cpu()
    order, improved = torch.arange(len(overlap)), True
    while improved:
        kept = overlap[torch.arange(len(overlap)), order]
        exchanged = overlap[:, order]  # [i, j]: row i under the name of row j
        gain = exchanged + exchanged.T - kept[:, None] - kept[None, :]
        first, second = divmod(int(gain.argmax()), len(overlap))
        improved = float(gain[first, second]) > 1e-9
        if improved:
            order[[first, second]] = order[[second, first]]
    return order


def _neighbours(block: Tensor, images: Tensor, ground_cost: GroundCost) -> Tensor:
    """The nearest other images of each: (n, 3) indices. An image drawn twice is no neighbour of itself."""
    cost = ground_cost(block, images)
    return cost.where(cost > 0, math.inf).topk(_NEIGHBOURS, dim=1, largest=False).indices


def _agglomerate(joint: Tensor, categories: int) -> Tensor:
    membership = torch.arange(len(joint))
    while len(joint) > categories:
        first, second = divmod(int(_merging_cost(joint).argmin()), len(joint))
        low, high = min(first, second), max(first, second)
        membership[membership == high] = low
        membership[membership > high] -= 1
        merging = F.one_hot(torch.arange(len(joint)).where(torch.arange(len(joint)) != high, low)).double()
        merging = merging[:, merging.any(dim=0)]
        joint = merging.T @ joint @ merging
    return membership


def _merging_cost(joint: Tensor) -> Tensor:
    """The information lost by merging each pair: (n, n) -> (n, n), infinite on the diagonal."""
    marginal, diagonal = joint.sum(dim=1), joint.diagonal()
    terms = _plogp(joint)
    kept = torch.stack([_plogp(row + joint).sum(dim=1) for row in joint])  # Σ_k φ(J_ik + J_jk), k = i, j included
    of_rows = kept - terms.sum(dim=1)[:, None] - terms.sum(dim=1)[None, :]
    # The columns i and j were counted as if they stayed two; merged they are one, on the diagonal.
    i_column, j_column = _plogp(diagonal[:, None] + joint), _plogp(diagonal[None, :] + joint)
    own = terms.diagonal()[:, None] + terms.diagonal()[None, :] + 2 * terms
    of_rows = of_rows - (i_column + j_column - own)
    of_diagonal = _plogp(diagonal[:, None] + diagonal[None, :] + 2 * joint) - own
    of_marginal = _plogp(marginal[:, None] + marginal[None, :]) - _plogp(marginal)[:, None] - _plogp(marginal)[None, :]
    cost = -(2 * of_rows + of_diagonal - 2 * of_marginal)
    return cost.fill_diagonal_(math.inf)


def _move(joint: Tensor, membership: Tensor, categories: int) -> Tensor:
    best, improved = _information(joint, membership, categories), True
    while improved:
        improved = False
        for cluster in range(len(joint)):
            if int((membership == membership[cluster]).sum()) == 1:
                continue
            for category in range(categories):
                moved = membership.clone()
                moved[cluster] = category
                information = _information(joint, moved, categories)
                if information > best + 1e-12:
                    best, membership, improved = information, moved, True
    return membership


def _information(joint: Tensor, membership: Tensor, categories: int) -> float:
    assignment = F.one_hot(membership, categories).double()
    merged = assignment.T @ joint @ assignment
    return float(_plogp(merged).sum() - 2 * _plogp(merged.sum(dim=1)).sum())


def _plogp(p: Tensor) -> Tensor:
    return torch.xlogy(p, p)
