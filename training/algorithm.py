"""Algorithm 1: one iteration of informative minimum Sinkhorn estimation (19).

The problem, with Q the dual variable of the information term:

    inf over G, γ̄, Q:  ∫ (c(G(z), y) − λ Q(z1, y)) dγ̄ + ε KL(γ̄ | ζ⊗ν) − ½ W_ε(G♯ζ, G♯ζ)
                        + λ (∫ exp Q dζ1⊗ν − 1)

KL is taken on Z × X. The paper's, on the image side, is at most that, equal when G is injective,
and lets (19) degenerate: latents that share an image would get their full information free.
For λ ≤ ε the problem in the plan is convex. With λ > 0 the loss is no divergence any more,
since the self term debiases the full ε: the log's `spread` shows it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .category_learning import CategoryLearning
from .code_distribution import make_code_distribution
from .configuration import Configuration
from .datasets import Dataset
from .ground_cost import GROUND_COSTS
from .information import partition_penalty
from .invariance import background_of, deform
from .networks import Networks, as_in_inference, running_statistics_kept
from .solvers import Optimisers, Plans, adam, make_solver
from .transport import column_marginal_error, plan_perplexity

Statistics = dict[str, Tensor]


class InformativeSinkhorn:
    """Networks, optimisers and the iteration that trains them.

    Attributes:
        networks: G, the trunk and its heads.
        optimisers: every optimiser by name, those of the solver included.
    """

    def __init__(self, networks: Networks, dataset: Dataset, settings: Configuration) -> None:
        self.networks, self.dataset, self.settings = networks, dataset, settings
        self.latent_space = settings.latent_space
        self.code_distribution = make_code_distribution(settings)
        self.ground_cost = GROUND_COSTS[settings.ground_cost]
        self.solver = make_solver(networks, settings)
        self.category_learning = CategoryLearning(networks, dataset, settings)
        self.generator_parameters = list(networks.generator.parameters())
        self.code_parameters = list(networks.code_head.parameters())
        if networks.over_clustering is not None:
            self.code_parameters += networks.over_clustering.parameters()
        # Coupled weight decay on Q's heads alone: a head reads the trunk, it does not own it.
        self.optimisers: Optimisers = {
            **self.solver.optimisers,
            "code": adam(
                self.code_parameters, settings.code_learning_rate, settings, weight_decay=settings.code_weight_decay
            ),
            "generator": adam(self.generator_parameters, settings.generator_learning_rate, settings),
        }
        self.q_parameters = self.code_parameters
        if self.solver.trunk_learns_through_q:
            trunk = list(networks.trunk.parameters())
            self.q_parameters = self.code_parameters + trunk
            self.optimisers["trunk"] = adam(trunk, settings.dual_learning_rate, settings)
        self.learning_rates = {name: each.param_groups[0]["lr"] for name, each in self.optimisers.items()}

    def iterate(self, iteration: int, random: torch.Generator) -> Statistics:
        """Lines 3 to 11 of Algorithm 1: the solver's updates, then one of Q and one of G.

        Args:
            iteration: which one this is, from 1.
            random: the source of everything random, on the networks' device.

        Returns:
            Scalars of this iteration, on the device: the two dual values, the full loss, the
            information bound in nats, (20) unless the settings name another, the plan's perplexity and column-marginal
            error, the losses (32) of G and (31) of Q, and I_τ and the listening term where
            they are on.
        """
        self.networks.train()
        self._set_learning_rates(iteration)
        if iteration <= self.settings.warm_up:
            statistics = self.warm_up_q(iteration, random)
        else:
            self.solver.improve(self.dataset, random)
            statistics = self.update_generator_and_q(iteration, random)
        self.category_learning.after(iteration, random)
        return statistics

    def warm_up_q(self, iteration: int, random: torch.Generator) -> Statistics:
        """An iteration before the transport begins: Q steps on I_τ alone, and G waits.

        Where the over-clusters are to be merged, they learn by themselves until then.
        """
        loss, statistics = self.category_learning.loss(iteration, random)
        for name in ("code", "trunk"):
            self.optimisers[name].zero_grad()
        torch.autograd.backward(loss, inputs=self.q_parameters)
        for name in ("code", "trunk"):
            self.optimisers[name].step()
        return statistics

    def update_generator_and_q(self, iteration: int, random: torch.Generator) -> Statistics:
        """Lines 8 to 11: draws a fresh minibatch, expresses the plans, and steps Q on (31) and G on (32).

            G: Σ P c(x, y) − ½ Σ H c(x', x'')        gradient through x, x' and x''; plans detached
            Q: −Σ P q + mean_j Z(y_j)                 into Q's head, and the trunk only where the solver has no duals

        z' and z'' are independent draws: at G♯ζ = ν the expected loss is then 0, which the
        self cost of a single batch would not give. z' may be z. With λ = 0 Q still learns, as an observer:
        the plan does not see it.
        """
        networks, settings = self.networks, self.settings
        size, space = settings.batch_size, self.latent_space
        z, y = space.draw(size, random), self.dataset.draw(size, random)
        features, scores = self._read(y)
        if settings.category_objective == "invariance":
            # As log-probabilities: nothing else would keep their partition function from growing.
            category = torch.log_softmax(scores[:, : space.categories].detach(), dim=1) + math.log(space.categories)
            scores = torch.cat([category, scores[:, space.categories :]], dim=1)
        q = self.code_distribution.pairwise(z[:, : space.informative], scores)
        x = networks.generator(z)
        cost = self.ground_cost(x, y)
        x2, self_cost, informed_self_cost = x, None, None
        if settings.debias:
            z1 = z if settings.shared_batch else space.draw(size, random)
            z2 = space.draw(size, random)
            x1, x2 = x if settings.shared_batch else networks.generator(z1), networks.generator(z2)
            self_cost = self.ground_cost(x1, x2)
            informed_self_cost = self_cost.detach()
            if settings.informed_self_term:
                informed_self_cost = informed_self_cost - settings.lambda_ * self._symmetric_q(z1, x1, z2, x2)
        plans = self.solver.plans(
            cost=cost.detach(),
            q=q.detach(),
            real_features=features.detach(),
            self_cost=informed_self_cost,
            generated=x2.detach(),
        )

        penalty = partition_penalty(self.code_distribution.log_partition(scores), settings.information_bound)
        q_loss = -(plans.transport_plan * q).sum() + penalty
        generator_loss = (plans.transport_plan * cost).sum()
        if self_cost is not None and plans.self_plan is not None:
            generator_loss = generator_loss - 0.5 * (plans.self_plan * self_cost).sum()
        statistics = self._statistics(plans, q.detach(), penalty.detach())
        statistics |= {"generator_loss": generator_loss.detach(), "q_loss": q_loss.detach()}
        objective, of_objective = self.category_learning.loss(iteration, random)
        q_loss = q_loss + objective
        statistics |= of_objective
        if iteration > settings.listening_from:
            if settings.listening:
                term = self._listening(x, space.category_of(z), random)
                generator_loss = generator_loss + settings.listening * term
                statistics["listening"] = term.detach()
            if settings.style_listening:
                term = self._style_listening(x, z)
                generator_loss = generator_loss + settings.style_listening * term
                statistics["style_listening"] = term.detach()

        # Both gradients before either step: Q and G move in parallel from one point.
        for name in ("code", "trunk", "generator"):
            if name in self.optimisers:
                self.optimisers[name].zero_grad()
        torch.autograd.backward(q_loss, inputs=self.q_parameters)
        torch.autograd.backward(generator_loss, inputs=self.generator_parameters)
        for name in ("code", "trunk", "generator"):
            if name in self.optimisers:
                self.optimisers[name].step()
        networks.average_generator(settings.averaging)
        return statistics

    @torch.no_grad()
    def generator_diagnostics(self, random: torch.Generator) -> dict[str, float]:
        """What the generator does, which the plan's information does not tell; slower, for the log.

        Args:
            random: a stream of its own, so that looking does not change the training.

        Returns:
            code_information: E log q(z1 | G(z)) relative to the prior, in nats, a lower bound on
                the mutual information (18) between code and sample.
            code_recovery: P(argmax q(·|G(z)) = category).
            spread: the mean pairwise cost of generated samples over that of real ones, 1 where
                they agree.
            cost_std: the standard deviation of c(x, y), to hold ε and λ log K against.
        """
        size, space, networks = self.settings.batch_size, self.latent_space, self.networks
        real = [self.dataset.draw(size, random) for _ in range(2)]
        latents = [space.draw(size, random) for _ in range(2)]
        with running_statistics_kept(networks):
            generated = [networks.generator(z) for z in latents]
            scores = networks.code_head(networks.trunk(generated[0]))
        recovered = scores[:, : space.categories].argmax(dim=1) == space.category_of(latents[0])
        information = self.code_distribution.log_density(latents[0][:, : space.informative], scores)
        spread = self.ground_cost(*generated).mean() / self.ground_cost(*real).mean()
        return {
            "code_information": information.mean().item(),
            "code_recovery": recovered.float().mean().item(),
            "spread": spread.item(),
            "cost_std": self.ground_cost(generated[0], real[0]).std().item(),
        }

    def _read(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Trunk features and Q's scores of real samples; where D2 and D4 own the trunk, it is only read."""
        networks = self.networks
        if self.solver.trunk_learns_through_q:
            features = networks.trunk(y)
            return features, networks.code_head(features)
        with running_statistics_kept(networks):
            with torch.no_grad():
                features = networks.trunk(y)
            return features, networks.code_head(features)

    @torch.no_grad()
    def _symmetric_q(self, z1: Tensor, x1: Tensor, z2: Tensor, x2: Tensor) -> Tensor:
        """½ (Q(z1'_i, x''_j) + Q(z1''_j, x'_i)), (B, B): of samples as Q(z1_i, y_j) is of data."""
        networks, informative = self.networks, self.latent_space.informative
        with running_statistics_kept(networks):
            scores = [networks.code_head(networks.trunk(x)) for x in (x1, x2)]
        forward = self.code_distribution.pairwise(z1[:, :informative], scores[1])
        backward = self.code_distribution.pairwise(z2[:, :informative], scores[0])
        return (forward + backward.T) / 2

    def _statistics(self, plans: Plans, q: Tensor, penalty: Tensor) -> Statistics:
        return {
            "dual_value": plans.value,
            "self_dual_value": plans.self_value,
            "loss": plans.value - 0.5 * plans.self_value + self.settings.lambda_ * (penalty - 1),
            "information": (plans.transport_plan * q).sum() + 1 - penalty,
            "plan_perplexity": plan_perplexity(plans.transport_plan),
            "column_marginal_error": column_marginal_error(plans.transport_plan),
        }

    def _listening(self, x: Tensor, category: Tensor, random: torch.Generator) -> Tensor:
        """−E log q(category | T G(z)): how badly Q, which learns from real data only, reads the code from samples.

        Q reads as it will be used, by the running statistics of real data: read by those of its own batch,
        samples grow specks that nothing else can read.
        """
        with as_in_inference(self.networks.trunk, self.networks.code_head):
            scores = self.networks.code_head(self.networks.trunk(deform(x, random, background_of(self.dataset))))
        return F.cross_entropy(scores[:, : self.latent_space.categories], category)

    def _style_listening(self, x: Tensor, z: Tensor) -> Tensor:
        """−E log q(style | G(z)), relative to the prior; on the sample itself, since deforming it changes its style."""
        space = self.latent_space
        with as_in_inference(self.networks.trunk, self.networks.code_head):
            scores = self.networks.code_head(self.networks.trunk(x))
        style = z[:, : space.informative]
        log_density = self.code_distribution.log_density(style, scores)
        category = torch.log_softmax(scores[:, : space.categories], dim=1)
        of_category = category.gather(1, space.category_of(z)[:, None]).squeeze(1) + math.log(space.categories)
        return (of_category - log_density).mean()

    def _set_learning_rates(self, iteration: int) -> None:
        """The settings' own, falling linearly over the last iterations where these ask for it."""
        if not self.settings.annealing:
            return
        left = self.settings.iterations - iteration + 1
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rates[name] * min(1.0, left / self.settings.annealing)
