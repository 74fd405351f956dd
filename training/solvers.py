"""Two oracles for the transport plans: the paper's neural duals, and Sinkhorn on each minibatch.

Algorithm 1 alternates between the plans (γ̄, η̄) and the networks (Q, G). An oracle answers the
first half: given the ground costs of a minibatch and Q on it, which plans?
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .code_distribution import make_code_distribution
from .configuration import Configuration
from .datasets import Dataset
from .ground_cost import GROUND_COSTS
from .latent import LatentSpace
from .networks import Networks, running_statistics_kept
from .transport import c_transform, plan_of_potential, sinkhorn

Optimisers = dict[str, torch.optim.Optimizer]


class Plans(NamedTuple):
    """The plans of one minibatch, and the values of their dual problems."""

    transport_plan: Tensor  # P of (29), (B, B): latents by data
    value: Tensor  # of W(ζ, ν) with the cost c − λQ
    self_plan: Tensor | None  # H of (30), (B, B): latents by latents; None without debiasing
    self_value: Tensor  # of W(G♯ζ, G♯ζ); 0 without debiasing


class Solver(Protocol):
    """An oracle for the plans.

    Attributes:
        optimisers: those of the networks that the oracle itself trains, by name.
        trunk_learns_through_q: whether the shared trunk is trained by Q's loss, for want of duals.
    """

    optimisers: Optimisers
    trunk_learns_through_q: bool

    def improve(self, dataset: Dataset, random: torch.Generator) -> None:
        """Lines 3 to 7: brings the oracle closer to the present G and Q."""

    def plans(
        self,
        *,
        cost: Tensor,
        q: Tensor,
        real_features: Tensor,
        self_cost: Tensor | None,
        generated: Tensor,
    ) -> Plans:
        """Line 8: the plans of a minibatch, without gradient.

        Args:
            cost: c(x_i, y_j), (B, B).
            q: Q(z1_i, y_j), (B, B).
            real_features: trunk(y_j), (B, features).
            self_cost: c(x'_i, x''_j), (B, B); None without debiasing.
            generated: x''_j, (B, ...).
        """


def adam(
    parameters: list[nn.Parameter], learning_rate: float, settings: Configuration, *, weight_decay: float = 0.0
) -> torch.optim.Adam:
    """Adam with the run's moments, fused into one kernel: 24 ms become 2 ms for the trunk on a CPU."""
    betas = (settings.adam_beta1, settings.adam_beta2)
    return torch.optim.Adam(parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True)


class NeuralDuals:
    """The paper's oracle: dual potentials D2 and D4 as networks on the shared trunk.

    Maximises, over D2 and D4 and the trunk, the semi-dual values (24) and (27)

        L2 = mean_i f_i + mean_j D2(y_j),     f_i = −ε log mean_j exp((D2(y_j) + λ q_ij − c(G(z_i), y_j)) / ε)
        L4 = mean_i h_i + mean_j D4(x''_j),   h_i = −ε log mean_j exp((D4(x''_j) − c(x'_i, x''_j)) / ε)

    by an Adam step on each in turn, n_D times. λQ belongs inside the transform of D2: equation
    (25) omits it, and then (29) has the wrong rows. (24) and (27) each print one ε too many.

    Each loss keeps Adam moments of its own for the trunk, so that neither drowns the other. With
    dual_update "joint", a faster deviation, one step follows L2 + L4.
    """

    trunk_learns_through_q = False

    def __init__(self, networks: Networks, settings: Configuration) -> None:
        self.networks, self.settings = networks, settings
        self.latent_space: LatentSpace = settings.latent_space
        self.code_distribution = make_code_distribution(settings)
        self.ground_cost = GROUND_COSTS[settings.ground_cost]
        trunk = list(networks.trunk.parameters())
        potential, self_potential = list(networks.potential.parameters()), list(networks.self_potential.parameters())
        if not settings.debias:
            groups = {"potential": trunk + potential}
        elif settings.dual_update == "joint":
            groups = {"potentials": trunk + potential + self_potential}
        else:
            groups = {"potential": trunk + potential, "self_potential": trunk + self_potential}
        self.parameters = groups
        self.optimisers: Optimisers = {
            name: adam(parameters, settings.dual_learning_rate, settings) for name, parameters in groups.items()
        }

    def improve(self, dataset: Dataset, random: torch.Generator) -> None:
        """Lines 3 to 7. Only trunk, D2 and D4 learn; G, Q and the ground cost give no gradient."""
        for _ in range(self.settings.dual_steps):
            if self.settings.dual_update == "joint" and self.settings.debias:
                self._ascend("potentials", self._data_value(dataset, random) + self._self_value(random))
                continue
            self._ascend("potential", self._data_value(dataset, random))
            if self.settings.debias:
                self._ascend("self_potential", self._self_value(random))

    def plans(
        self,
        *,
        cost: Tensor,
        q: Tensor,
        real_features: Tensor,
        self_cost: Tensor | None,
        generated: Tensor,
    ) -> Plans:
        """Line 8: the plans (29) and (30), each a row softmax."""
        epsilon = self.settings.epsilon
        with torch.no_grad(), running_statistics_kept(self.networks):
            informed_cost = cost - self.settings.lambda_ * q
            potential = self.networks.potential(real_features).squeeze(1)
            plan = plan_of_potential(potential, informed_cost, epsilon=epsilon)
            value = _semi_dual(potential, informed_cost, epsilon)
            if self_cost is None:
                return Plans(plan, value, None, torch.zeros_like(value))
            self_potential = self.networks.self_potential(self.networks.trunk(generated)).squeeze(1)
            self_plan = plan_of_potential(self_potential, self_cost, epsilon=epsilon)
            return Plans(plan, value, self_plan, _semi_dual(self_potential, self_cost, epsilon))

    def _data_value(self, dataset: Dataset, random: torch.Generator) -> Tensor:
        """L2 on a fresh minibatch (line 4)."""
        size, networks = self.settings.batch_size, self.networks
        z, y = self.latent_space.draw(size, random), dataset.draw(size, random)
        features = networks.trunk(y)
        with torch.no_grad(), running_statistics_kept(networks.generator):
            cost = self.ground_cost(networks.generator(z), y)
            q = self.code_distribution.pairwise(z[:, : self.latent_space.informative], networks.code_head(features))
            informed_cost = cost - self.settings.lambda_ * q
        return _semi_dual(networks.potential(features).squeeze(1), informed_cost, self.settings.epsilon)

    def _self_value(self, random: torch.Generator) -> Tensor:
        """L4 on a fresh minibatch (line 6); the trunk's running statistics follow real data only."""
        size, networks = self.settings.batch_size, self.networks
        with running_statistics_kept(networks.generator, networks.trunk):
            with torch.no_grad():
                x1 = networks.generator(self.latent_space.draw(size, random))
                x2 = networks.generator(self.latent_space.draw(size, random))
                cost = self.ground_cost(x1, x2)
            potential = networks.self_potential(networks.trunk(x2)).squeeze(1)
        return _semi_dual(potential, cost, self.settings.epsilon)

    def _ascend(self, name: str, value: Tensor) -> None:
        self.optimisers[name].zero_grad()
        torch.autograd.backward(-value, inputs=self.parameters[name])
        self.optimisers[name].step()


class MinibatchSinkhorn:
    """Sinkhorn's algorithm on each minibatch, in place of D2 and D4.

    The objective is then E[W(μ_B, ν_B)] over minibatches, an upper bound on W(G♯ζ, ν) that
    tightens as B grows. Nothing is trained here; the trunk learns through Q.
    """

    trunk_learns_through_q = True

    def __init__(self, settings: Configuration) -> None:
        self.settings = settings
        self.optimisers: Optimisers = {}

    def improve(self, dataset: Dataset, random: torch.Generator) -> None:
        """Nothing to improve: each minibatch is solved anew."""

    def plans(
        self,
        *,
        cost: Tensor,
        q: Tensor,
        real_features: Tensor,  # noqa: ARG002
        self_cost: Tensor | None,
        generated: Tensor,  # noqa: ARG002
    ) -> Plans:
        """Line 8 by Sinkhorn's algorithm."""
        epsilon, iterations = self.settings.epsilon, self.settings.sinkhorn_iterations
        with torch.no_grad():
            solution = sinkhorn(cost - self.settings.lambda_ * q, epsilon=epsilon, iterations=iterations)
            if self_cost is None:
                return Plans(solution.transport_plan, solution.value, None, torch.zeros_like(solution.value))
            self_solution = sinkhorn(self_cost, epsilon=epsilon, iterations=iterations)
        return Plans(solution.transport_plan, solution.value, self_solution.transport_plan, self_solution.value)


def make_solver(networks: Networks, settings: Configuration) -> Solver:
    """The oracle that the settings name."""
    return NeuralDuals(networks, settings) if settings.solver == "neural-duals" else MinibatchSinkhorn(settings)


def _semi_dual(potential: Tensor, cost: Tensor, epsilon: float) -> Tensor:
    return c_transform(potential, cost, epsilon=epsilon).mean() + potential.mean()
