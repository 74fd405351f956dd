"""Lower bounds on the information KL(π♯γ̄ | ζ1⊗ν) that z1 carries about the data under a plan.

Each holds for any function Q(z1, y), and is tight where its equality condition is met:

    Fenchel (20)                    ∫ Q dγ̄ + 1 − ∫ Z dν          at Q = log density ratio
    Donsker-Varadhan                ∫ Q dγ̄ − log ∫ Z dν          at that, plus any constant
    per sample, Barber-Agakov (22)  ∫ (Q − log Z(y)) dγ̄          at that, plus any function of y

with Z(y) = ∫ exp Q(z1, y) dζ1. For a plan whose second marginal is ν they are ordered as listed,
by log x ≤ x − 1 and by Jensen's inequality. Fenchel is what the paper's Q is trained on; with a
parametrisation that is a density already (Z = 1) all three coincide.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .configuration import InformationBound

_EXP_GUARD = 20.0


class InformationBounds(NamedTuple):
    """The three bounds on one plan, in nats."""

    fenchel: Tensor
    donsker_varadhan: Tensor
    per_sample: Tensor


def information_bounds(transport_plan: Tensor, q: Tensor, log_partitions: Tensor) -> InformationBounds:
    """The bounds on the information of a plan between minibatches.

    Args:
        transport_plan: P, (n, m).
        q: Q(z1_i, y_j), (n, m).
        log_partitions: log Z(y_j), (m,).
    """
    expected = (transport_plan * q).sum()
    return InformationBounds(
        fenchel=expected + 1 - partition_penalty(log_partitions, "fenchel"),
        donsker_varadhan=expected + 1 - partition_penalty(log_partitions, "donsker-varadhan"),
        per_sample=expected - (transport_plan.sum(dim=0) * log_partitions).sum(),
    )


def partition_penalty(log_partitions: Tensor, bound: InformationBound) -> Tensor:
    """What a bound charges Q for its mass; a bound is Σ P q + 1 − this.

    For "fenchel" mean_j Z(y_j) of (31), continued linearly above log Z = 20 so that float32
    cannot overflow; for "donsker-varadhan" 1 + log mean_j Z(y_j), which never exceeds it and
    touches it where the mean is 1.

    Args:
        log_partitions: log Z(y_j), (m,).
        bound: which one.
    """
    if bound == "donsker-varadhan":
        return 1 + torch.logsumexp(log_partitions, dim=0) - math.log(len(log_partitions))
    guarded = log_partitions.clamp(max=_EXP_GUARD)
    return (guarded.exp() * (1 + log_partitions - guarded)).mean()
