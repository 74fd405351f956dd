"""Algorithm 1: what each step computes, and what it may and may not change."""

import copy
import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from infosink.training.algorithm import InformativeSinkhorn, Statistics
from infosink.training.configuration import Configuration, preset_configuration
from infosink.training.datasets import Dataset, open_dataset
from infosink.training.ground_cost import l1
from infosink.training.information import information_bounds
from infosink.training.invariance import deform, invariance_information
from infosink.training.networks import Networks, batch_norms, inference_copy
from infosink.training.solvers import MinibatchSinkhorn
from infosink.training.trainer import make_networks
from infosink.training.transport import column_marginal_error, sinkhorn
from torch import Tensor, nn

SMALL_IMAGES = dict(batch_size=6, view_batch_size=6, sinkhorn_iterations=10, dual_steps=2, iterations=2)
SMALL_POINTS = dict(batch_size=16, dual_steps=2, iterations=2)


@pytest.fixture(scope="module")
def mnist(mnist_directory) -> Dataset:
    return open_dataset("mnist", data_directory=mnist_directory)


def algorithm(dataset: Dataset, preset: str = "paper", **overrides) -> InformativeSinkhorn:
    small = SMALL_IMAGES if dataset.frame else SMALL_POINTS
    settings = preset_configuration(dataset.name, preset, **(small | overrides))
    torch.manual_seed(0)
    return InformativeSinkhorn(make_networks(settings, dataset.sample_shape), dataset, settings)


def changed(before: dict[str, Tensor], networks: Networks) -> set[str]:
    """The networks of which any weight or statistic is another."""
    return {
        name.split(".")[0] for name, tensor in networks.state_dict().items() if not torch.equal(tensor, before[name])
    }


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative_error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """‖actual − expected‖ / ‖expected‖ over all tensors as one vector."""
    a, b = (torch.cat([tensor.detach().double().flatten() for tensor in tensors]) for tensors in (actual, expected))
    return ((a - b).norm() / b.norm()).item()


def descend(loss: Tensor, rate: float, *parts: nn.Module, decay: float = 0.0) -> None:
    weights = [weight for part in parts for weight in part.parameters()]
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= rate * (gradient + decay * weight)


def algorithm_1(networks: Networks, dataset: Dataset, settings: Configuration, draws: torch.Generator) -> Statistics:
    """An iteration in the letter of the equations, with λQ inside (25), by plain gradient steps.

    In float64 but for the networks. Returns the values at line 8.
    """
    space, size, epsilon, lambda_ = settings.latent_space, settings.batch_size, settings.epsilon, settings.lambda_
    G, trunk, Q = networks.generator, networks.trunk, networks.code_head
    D2, D4 = networks.potential, networks.self_potential

    def cost(x: Tensor, y: Tensor) -> Tensor:
        return (x[:, None] - y).abs().sum(2).double()

    def transform(potential: Tensor, cost: Tensor) -> Tensor:
        return -epsilon * ((potential - cost) / epsilon).exp().mean(1).log()

    def dual_value(potential: Tensor, cost: Tensor) -> Tensor:
        return transform(potential, cost).mean() + potential.mean()

    def plan(potential: Tensor, cost: Tensor) -> Tensor:
        return ((transform(potential, cost)[:, None] + potential - cost) / epsilon).exp().detach() / size**2

    def data_problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, y = space.draw(size, draws), dataset.draw(size, draws)
        features = trunk(y)
        scores = Q(features).double()
        return cost(G(z), y), z[:, : space.informative].double() @ scores.T, D2(features)[:, 0].double(), scores

    def self_problem() -> tuple[Tensor, Tensor]:
        x1, x2 = G(space.draw(size, draws)), G(space.draw(size, draws))
        return cost(x1, x2), D4(trunk(x2.detach()))[:, 0].double()

    def equation_24() -> Tensor:
        c, q, d2, _ = data_problem()
        return dual_value(d2, (c - lambda_ * q).detach())

    def equation_27() -> Tensor:
        c, d4 = self_problem()
        return dual_value(d4, c.detach())

    for _ in range(settings.dual_steps):
        if settings.dual_update == "joint":
            descend(-(equation_24() + equation_27()), settings.dual_learning_rate, trunk, D2, D4)
        else:
            descend(-equation_24(), settings.dual_learning_rate, trunk, D2)
            descend(-equation_27(), settings.dual_learning_rate, trunk, D4)

    c, q, d2, scores = data_problem()
    self_c, d4 = self_problem()
    P, H = plan(d2, c - lambda_ * q), plan(d4, self_c)
    category, style = scores.split([space.categories, space.styles], 1)
    partition = (category.exp().mean(1) * (style.sinh() / style).prod(1)).mean()
    equation_31 = -(P * q).sum() + partition
    equation_32 = (P * c).sum() - 0.5 * (H * self_c).sum()
    L2, L4 = dual_value(d2, c - lambda_ * q), dual_value(d4, self_c)
    descend(equation_31, settings.code_learning_rate, Q, decay=settings.code_weight_decay)
    descend(equation_32, settings.generator_learning_rate, G)
    return {
        "dual_value": L2,
        "self_dual_value": L4,
        "loss": L2 - 0.5 * L4 + lambda_ * (partition - 1),
        "information": (P * q).sum() + 1 - partition,
        "plan_perplexity": (-(P * size * (P * size).log()).sum(1).mean()).exp(),
        "column_marginal_error": (P.sum(0) - 1 / size).abs().sum(),
        "generator_loss": equation_32,
        "q_loss": equation_31,
    }


class Iteration(NamedTuple):
    """One iteration, by the product and by the letter."""

    start: Networks
    product: Networks
    letter: Networks
    statistics: Statistics
    expected_statistics: Statistics


@pytest.fixture(scope="module", params=["sequential", "joint"])
def iteration(request) -> Iteration:
    """Under plain gradient steps, over the same parameters at the same rates: Adam's first step shows signs alone."""
    model = algorithm(
        open_dataset("gaussians"),
        dual_update=request.param,
        styles=2,
        dual_learning_rate=0.05,
        code_learning_rate=0.1,
        generator_learning_rate=0.2,
        code_weight_decay=0.3,
    )
    for optimisers in (model.optimisers, model.solver.optimisers):
        for name, optimiser in optimisers.items():
            (group,) = optimiser.param_groups
            optimisers[name] = torch.optim.SGD(group["params"], lr=group["lr"], weight_decay=group["weight_decay"])
    start, letter = copy.deepcopy(model.networks), copy.deepcopy(model.networks)
    expected_statistics = algorithm_1(letter, model.dataset, model.settings, random())
    statistics = model.iterate(1, random())
    return Iteration(start, model.networks, letter, statistics, expected_statistics)


@pytest.mark.parametrize("part", ["trunk", "potential", "self_potential", "code_head", "generator"])
def test_each_network_moves_as_algorithm_1_says(iteration, part):
    start, product, letter = (
        list(networks.get_submodule(part).parameters())
        for networks in (iteration.start, iteration.product, iteration.letter)
    )
    movement, expected = ([b - a for a, b in zip(start, end, strict=True)] for end in (product, letter))
    assert relative_error(movement, expected) < 1e-4


def test_the_reported_values_are_those_of_the_equations(iteration):
    reported = {name: value.item() for name, value in iteration.statistics.items()}
    expected = {name: value.item() for name, value in iteration.expected_statistics.items()}
    assert reported == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_every_optimiser_is_adam_with_the_moments_of_the_run():
    for preset in ("paper", "quick"):
        model = algorithm(open_dataset("gaussians"), preset)
        for optimiser in model.optimisers.values():
            assert type(optimiser) is torch.optim.Adam  # whose weight decay is coupled, unlike AdamW's
            assert optimiser.defaults["betas"] == (0.0, 0.9)


@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_weight_decay_reaches_the_head_of_q_alone(preset):
    models = [algorithm(open_dataset("gaussians"), preset, code_weight_decay=decay) for decay in (0.0, 0.1)]
    for model in models:
        model.iterate(1, random())
    assert changed(models[0].networks.state_dict(), models[1].networks) == {"code_head"}


def test_the_dual_steps_raise_both_dual_values_towards_their_suprema():
    """Adam at fixed G and Q; on a held minibatch, whose Sinkhorn values no potential can exceed."""
    model = algorithm(open_dataset("gaussians"), batch_size=64, dual_steps=50)
    networks, settings, space, draws = model.networks, model.settings, model.settings.latent_space, random(1)
    with torch.no_grad():
        networks.generator[-1].weight.mul_(20)  # samples as far apart as the data
        z, y = space.draw(64, draws), model.dataset.draw(64, draws)
        x, x1, x2 = networks.generator(z), *(networks.generator(space.draw(64, draws)) for _ in range(2))
        q = z[:, : space.informative] @ networks.code_head(networks.trunk(y)).T
    cost, self_cost = l1(x, y), l1(x1, x2)

    def values() -> Tensor:
        with torch.no_grad():
            features = networks.trunk(y)
        plans = model.solver.plans(cost=cost, q=q, real_features=features, self_cost=self_cost, generated=x2)
        return torch.stack([plans.value, plans.self_value])

    suprema = torch.stack(
        [sinkhorn(c, epsilon=settings.epsilon, iterations=500).value for c in (cost - settings.lambda_ * q, self_cost)]
    )
    before = values()
    model.solver.improve(model.dataset, random(2))
    after = values()
    assert (after - before > (suprema - before) / 3).all()
    assert (after < suprema).all()


@pytest.mark.parametrize(("name", "preset"), [("gaussians", "paper"), ("mnist", "quick")])
def test_the_running_statistics_of_the_trunk_follow_the_real_batch_alone(name, preset, mnist):
    """Neither generated samples nor views nor a second reading of real ones leave a trace."""
    dataset = mnist if name == "mnist" else open_dataset(name)
    model = algorithm(dataset, preset, dual_steps=1, listening_from=0)
    networks, size, replay = model.networks, model.settings.batch_size, random()
    model.settings.latent_space.draw(size, replay)
    mean = networks.trunk[0](dataset.draw(size, replay)).detach().transpose(0, 1).flatten(1).mean(1)
    model.iterate(1, random())
    torch.testing.assert_close(networks.trunk[1].running_mean, 0.1 * mean)
    assert {layer.num_batches_tracked.item() for layer in batch_norms(networks.trunk)} == {1}


@pytest.mark.parametrize("dual_update", ["sequential", "joint"])
@pytest.mark.parametrize("name", ["mnist", "gaussians"])
def test_the_dual_steps_train_trunk_and_potentials_only(name, dual_update, mnist):
    model = algorithm(mnist if name == "mnist" else open_dataset(name), dual_update=dual_update)
    before = copy.deepcopy(model.networks.state_dict())
    weights = {key for key, _ in model.networks.named_parameters()}
    model.solver.improve(model.dataset, random())
    assert changed(before, model.networks) - {"code_head"} == {"trunk", "potential", "self_potential"}
    # Q's head sees real features, so that its statistics may follow them; its weights are not touched.
    state = model.networks.state_dict()
    assert all(torch.equal(state[key], before[key]) for key in weights if key.startswith("code_head"))


@pytest.mark.parametrize("name", ["mnist", "gaussians"])
def test_the_generator_step_leaves_the_trunk_and_potentials_as_they_are(name, mnist):
    """Q's optimiser holds only its head, on detached features; not even a statistic of the trunk moves."""
    model = algorithm(mnist if name == "mnist" else open_dataset(name))
    before = copy.deepcopy(model.networks.state_dict())
    model.networks.train()
    model.update_generator_and_q(1, random())
    assert changed(before, model.networks) == {"generator", "code_head"}


def test_with_the_sinkhorn_solver_the_trunk_learns_through_q(mnist):
    model = algorithm(mnist, "quick", invariance=0.0, listening=0.0, averaging=0.0)
    before = copy.deepcopy(model.networks.state_dict())
    model.iterate(1, random())
    assert changed(before, model.networks) == {"generator", "code_head", "trunk"}


def test_without_debiasing_the_self_potential_is_not_trained(mnist):
    model = algorithm(mnist, debias=False)
    before = copy.deepcopy(model.networks.state_dict())
    statistics = model.iterate(1, random())
    assert "self_potential" not in changed(before, model.networks)
    assert statistics["self_dual_value"] == 0


def test_invariance_moves_q_and_listening_moves_the_generator(mnist):
    """Q's gradient gains −Δα ∇I_τ, G's gains −Δμ ∇E log q(k(z) | T G(z)), and neither anything else."""
    models = [
        algorithm(mnist, "quick", over_clusters=7, invariance=alpha, listening=mu, listening_from=0)
        for alpha, mu in ((1.0, 0.0), (3.0, 5.0))
    ]
    networks, space, replay = copy.deepcopy(models[0].networks), models[0].settings.latent_space, random()
    for model in models:
        model.iterate(1, random())

    def information(scores: Tensor) -> Tensor:
        q, view_q = scores.double().softmax(1).chunk(2)
        joint = q.T @ view_q / len(q)
        joint = (joint + joint.T) / 2
        return (joint * (joint / torch.outer(joint.sum(1), joint.sum(1))).log()).sum()

    z, y, _, _, images = (source.draw(6, replay) for source in (space, mnist, space, space, mnist))
    networks.code_head(networks.trunk(y))
    reader = copy.deepcopy(networks).eval()  # with the running statistics of the real batch
    features = networks.trunk(torch.cat([images, deform(images, replay, -1.0)]))
    invariance = information(networks.code_head(features)[:, :10]) + information(networks.over_clustering(features))
    samples = deform(networks.generator(z), replay, -1.0)
    view_scores = reader.code_head(reader.trunk(samples))[:, :10]
    listening = view_scores.log_softmax(1)[z[:, :10].bool()].mean()
    gains = dict.fromkeys(("code_head", "over_clustering", "trunk"), -2 * invariance) | {"generator": -5 * listening}
    for part, gain in gains.items():
        expected = torch.autograd.grad(gain, list(networks.get_submodule(part).parameters()), retain_graph=True)
        first, second = ([w.grad for w in model.networks.get_submodule(part).parameters()] for model in models)
        assert relative_error([b - a for a, b in zip(first, second, strict=True)], expected) < 1e-4


def test_listening_waits_for_its_iteration(mnist):
    model = algorithm(mnist, "quick", listening=0.5, listening_from=1)
    assert "listening" not in model.iterate(1, random())
    assert "listening" in model.iterate(2, random())


def test_style_listening_reads_the_styles_of_the_samples_themselves(mnist):
    """G's gradient gains −Δ ∇E log q(style | G(z)); the category's part of the density does not enter."""
    options = dict(parametrisation="log-density", invariance=1.0, listening=0.0, listening_from=0)
    models = [algorithm(mnist, "quick", style_listening=weight, **options) for weight in (0.0, 4.0)]
    networks, space, replay = copy.deepcopy(models[0].networks), models[0].settings.latent_space, random()
    for model in models:
        model.iterate(1, random())
    z, y = space.draw(6, replay), mnist.draw(6, replay)
    networks.code_head(networks.trunk(y))
    reader = copy.deepcopy(networks).eval()  # with the running statistics of the real batch
    scores = reader.code_head(reader.trunk(networks.generator(z)))
    mean, deviation = scores[:, 10:12].tanh(), torch.exp(math.log(10) * scores[:, 12:14].tanh())
    normal = torch.distributions.Normal(mean.double(), deviation.double())
    mass = normal.cdf(torch.ones(())) - normal.cdf(-torch.ones(()))
    log_density = (normal.log_prob(z[:, 10:12].double()) - mass.log()).sum(1).mean()
    expected = torch.autograd.grad(-4 * log_density, list(networks.generator.parameters()))
    first, second = ([w.grad for w in model.networks.generator.parameters()] for model in models)
    assert relative_error([b - a for a, b in zip(first, second, strict=True)], expected) < 1e-3
    assert changed(networks.state_dict(), models[1].networks) >= {"generator", "code_head", "trunk"}


def test_in_the_warm_up_only_the_over_clusters_learn_and_then_q_learns_what_they_merge_into(mnist):
    """The gradient of −α I_τ(Q̃) first; after merging, that of −α (I_τ(Q̃) + I_τ(Q)) and of the cross entropy."""
    options = dict(
        over_clusters=12, over_balance=1.5, warm_up=2, merge_after=1, merge_samples=50, taught_until=3, iterations=4
    )
    model = algorithm(mnist, "quick", **options)
    before = copy.deepcopy(model.networks)
    first = model.iterate(1, random())
    assert changed(before.state_dict(), model.networks) == {"over_clustering", "trunk", "membership"}
    assert model.networks.membership.unique().tolist() == list(range(10))
    assert first.keys() == {"invariance", "taught"}
    assert first["taught"] == 0

    networks, membership = copy.deepcopy(model.networks), model.networks.membership.clone()
    statistics = model.iterate(2, random(2))
    assert changed(networks.state_dict(), model.networks) == {"over_clustering", "trunk", "code_head"}
    replay = random(2)
    images = mnist.draw(6, replay)
    features = networks.trunk(torch.cat([images, deform(images, replay, -1.0)]))
    clusters, scores = networks.over_clustering(features), networks.code_head(features)[:, :10]
    q = clusters[:6].softmax(1).detach()
    merged = torch.stack([q[:, membership == category].sum(1) for category in range(10)], dim=1)
    taught = -(merged * scores[6:].log_softmax(1)).sum(1).mean()
    information = invariance_information(*scores.chunk(2)) + invariance_information(*clusters.chunk(2), 1.5)
    assert statistics["taught"].item() == pytest.approx(taught.item(), rel=1e-5)
    for part in ("code_head", "over_clustering", "trunk"):
        weights = list(networks.get_submodule(part).parameters())
        expected = torch.autograd.grad(taught - information, weights, retain_graph=True, allow_unused=True)
        actual = [weight.grad for weight in model.networks.get_submodule(part).parameters()]
        pairs = [(a, e) for a, e in zip(actual, expected, strict=True) if e is not None]
        assert relative_error(*zip(*pairs, strict=True)) < 1e-4

    assert model.iterate(3, random())["taught"] > 0
    assert "generator" in changed(networks.state_dict(), model.networks)
    assert model.iterate(4, random())["taught"] == 0


def test_merged_categories_keep_the_order_that_the_generator_heeds(mnist):
    """Clusters that copy Q's categories, two each, merge into categories of Q's own numbers."""
    options = dict(over_clusters=20, merge_after=1, merge_samples=300, taught_until=2, listening=0.0)
    model = algorithm(mnist, "quick", **options)
    networks = model.networks
    with torch.no_grad():
        networks.code_head = nn.Sequential(nn.Linear(1024, 12))
        networks.code_head[0].weight.mul_(300)
        order = torch.randperm(20, generator=random())
        networks.over_clustering.weight.copy_(networks.code_head[0].weight[:10].repeat(2, 1)[order])
        networks.over_clustering.bias.copy_(networks.code_head[0].bias[:10].repeat(2)[order])
    model.category_learning.after(1, random())
    used = networks.over_clustering(networks.trunk(mnist.draw(500, random()))).softmax(1).sum(0) > 5
    assert used.sum() >= 10
    assert torch.equal(networks.membership[used], (order % 10)[used])


def test_by_invariance_alone_the_plan_teaches_q_its_styles_only(mnist):
    """And the category's log-probabilities, whatever the size of its scores, leave the bound where it was."""
    model = algorithm(mnist, "quick", invariance=0.0, listening=0.0, averaging=0.0)
    model.settings = dataclasses.replace(model.settings, invariance=1e-12, category_objective="invariance")
    with torch.no_grad():
        model.networks.code_head[-1].bias[:10] += 50
    statistics = model.iterate(1, random())
    gradient = model.networks.code_head[-1].weight.grad
    assert gradient[:10].abs().max() < 1e-6 * gradient[10:].abs().max()
    assert abs(statistics["information"].item()) < math.log(10) + 2


@pytest.mark.parametrize("name", ["mnist", "gaussians"])
def test_anchors_teach_q_their_labels_and_leave_the_generator_alone(name, mnist):
    dataset = mnist if name == "mnist" else open_dataset(name)
    options = dict(invariance=0.0, listening=0.0, averaging=0.0)
    plain, anchored = (algorithm(dataset, "quick", anchor_labels=count, **options) for count in (0, 2))
    for model in (plain, anchored):
        model.iterate(1, random())
    first, second = (model.networks.state_dict() for model in (plain, anchored))
    assert {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])} == {"code_head", "trunk"}
    if name == "gaussians":
        losses = [anchored.iterate(iteration, random(iteration))["anchoring"].item() for iteration in range(2, 22)]
        assert losses[-1] < 0.8 * math.log(len(dataset.label_names))


def test_the_labels_of_anchors_spread_and_teach(mnist):
    """They reach the samples beside the anchors, oftener rightly than by chance, and stay in the networks' state."""
    options = dict(over_clusters=12, merge_after=2, merge_samples=60, taught_until=3, listening=0.0, anchor_labels=2)
    model = algorithm(mnist, "quick", **options)
    networks, learning = model.networks, model.category_learning
    assert networks.membership is None
    head = networks.code_head[-1].weight[:10].detach().clone()
    model.iterate(1, random())
    assert networks.anchored.sum() == 20
    model.iterate(2, random())
    assert (networks.anchored.sum(dim=1) > 0).all()
    reached = networks.anchored[20:].argmax(dim=1)
    images, labels = (torch.cat(parts) for parts in zip(*mnist.batches("training", 10_000), strict=True))
    known = {image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    truth = torch.tensor([known[sample.numpy().tobytes()] for sample in learning.anchors.samples[20:]])
    assert (reached == truth).float().mean() > 0.3
    assert not torch.equal(head, networks.code_head[-1].weight[:10])
    assert torch.equal(networks.state_dict()["anchored"], networks.anchored)
    # I_τ guesses no category beside them: of both heads it would be two terms.
    assert learning.loss(3, random())[1]["invariance"] <= math.log(12)


def test_learning_rates_fall_over_the_last_iterations(mnist):
    model = algorithm(mnist, "quick", invariance=0.0, listening=0.0, averaging=0.0, iterations=4, annealing=2)
    rates = []
    for iteration in range(1, 5):
        model.iterate(iteration, random())
        rates.append(model.optimisers["generator"].param_groups[0]["lr"])
    assert rates == pytest.approx([5e-4, 5e-4, 5e-4, 2.5e-4])


def test_a_shared_batch_serves_both_terms(mnist):
    """The self term's z' is z: one draw of latents fewer, and a loss that is the definition's on these samples."""
    model = algorithm(mnist, "quick", invariance=0.0, listening=0.0, shared_batch=True)
    networks, space, replay = copy.deepcopy(model.networks).train(), model.latent_space, random()
    statistics = model.iterate(1, random())
    z, y, z2 = (source.draw(6, replay) for source in (space, mnist, space))
    x, x2 = networks.generator(z), networks.generator(z2)
    q = z[:, :12] @ networks.code_head(networks.trunk(y)).T
    costs = l1(x, y), l1(x, x2)
    plan, self_plan = (sinkhorn(c, epsilon=0.05, iterations=10).transport_plan for c in (costs[0] - 0.05 * q, costs[1]))
    expected = (plan * costs[0]).sum() - 0.5 * (self_plan * costs[1]).sum()
    assert statistics["generator_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_informed_self_term_weighs_samples_by_q_as_the_data_term_weighs_data(mnist):
    """H solves c(x', x'') − λ ½ (Q(z1', x'') + Q(z1'', x')); the cost that G descends stays c."""
    model = algorithm(mnist, "quick", invariance=0.0, listening=0.0, informed_self_term=True)
    with torch.no_grad():
        model.networks.code_head[-1].weight.mul_(20)  # a Q that tells samples apart
    networks, space, replay = copy.deepcopy(model.networks).train(), model.latent_space, random()
    statistics = model.iterate(1, random())
    z, y, z1, z2 = (source.draw(6, replay) for source in (space, mnist, space, space))
    x, x1, x2 = (networks.generator(each) for each in (z, z1, z2))

    def q(latents: Tensor, samples: Tensor) -> Tensor:
        return latents[:, :12] @ networks.code_head(networks.trunk(samples)).T

    cost, self_cost = l1(x, y), l1(x1, x2)
    plan = sinkhorn(cost - 0.05 * q(z, y), epsilon=0.05, iterations=10).transport_plan
    informed = self_cost - 0.05 * (q(z1, x2) + q(z2, x1).T) / 2
    self_plan = sinkhorn(informed, epsilon=0.05, iterations=10).transport_plan
    expected = (plan * cost).sum() - 0.5 * (self_plan * self_cost).sum()
    plain = (plan * cost).sum() - 0.5 * (
        sinkhorn(self_cost, epsilon=0.05, iterations=10).transport_plan * self_cost
    ).sum()
    assert statistics["generator_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert abs((expected - plain).item()) > 1e-4


def test_in_bfloat16_the_step_is_nearly_that_of_float32_and_evaluation_is_exact(mnist):
    exact, reduced = (algorithm(mnist, "quick", precision=precision) for precision in ("float32", "bfloat16"))
    before = exact.networks.state_dict()
    assert not changed(before, reduced.networks)
    losses = [float(model.iterate(1, random())["generator_loss"]) for model in (exact, reduced)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert all(weight.dtype == torch.float32 for weight in reduced.networks.parameters())
    reduced.networks.load_state_dict(exact.networks.state_dict())
    images = mnist.draw(4, random())
    with torch.no_grad():
        assert torch.equal(*[model.networks.eval().trunk(images) for model in (exact, reduced)])
    copies = [inference_copy(model.networks, [images], [torch.randn(4, 100)]) for model in (exact, reduced)]
    assert torch.equal(*[each.trunk(images) for each in copies])


def test_at_lambda_zero_q_does_not_move_the_generator():
    """The baseline is the same code: Q observes, the plan does not see it."""
    dataset = open_dataset("gaussians")
    models = [algorithm(dataset, lambda_=0.0) for _ in range(2)]
    with torch.no_grad():
        for weight in models[1].networks.code_head.parameters():
            weight.mul_(-3.0)
    for model in models:
        model.iterate(1, random())
    first, second = (model.networks.generator.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def calibrated_problem() -> tuple[Tensor, Tensor]:
    return torch.rand(64, 64, generator=random(1)) * 4, 4 * torch.randn(64, 64, generator=random(2))


def test_neural_plans_are_equations_29_and_30_with_q_inside_the_transform():
    """Equation (25) as printed omits λQ; (29) then has rows, and a total mass, far from those of a coupling."""
    model = algorithm(open_dataset("gaussians"), batch_size=64)
    networks, epsilon, lambda_ = model.networks, model.settings.epsilon, model.settings.lambda_
    cost, q = calibrated_problem()
    features, generated = torch.randn(64, 512, generator=random(3)), torch.randn(64, 2, generator=random(4))
    with torch.no_grad():
        networks.potential[-1].weight.mul_(10)
        networks.self_potential[-1].weight.mul_(10)
        d2, d4 = networks.potential(features)[:, 0], networks.self_potential(networks.trunk(generated))[:, 0]
    plans = model.solver.plans(cost=cost, q=q, real_features=features, self_cost=cost, generated=generated)

    def transform(potential: Tensor, cost: Tensor) -> Tensor:
        return -epsilon * ((potential - cost) / epsilon).exp().mean(1, keepdim=True).log()

    def coupling(transformed: Tensor, potential: Tensor, cost: Tensor) -> Tensor:
        return ((transformed + potential - cost) / epsilon).exp() / 64**2

    informed = cost - lambda_ * q
    torch.testing.assert_close(plans.transport_plan, coupling(transform(d2, informed), d2, informed))
    torch.testing.assert_close(plans.self_plan, coupling(transform(d4, cost), d4, cost))
    assert coupling(transform(d2, cost), d2, informed).sum() > 2  # as printed


def test_sinkhorn_plans_are_couplings_that_favour_q():
    cost, q = calibrated_problem()
    settings = preset_configuration("gaussians", "quick", batch_size=64, sinkhorn_iterations=200)
    arguments = dict(cost=cost, real_features=torch.zeros(64, 1), self_cost=cost, generated=torch.zeros(64, 2))
    informed = MinibatchSinkhorn(settings).plans(q=q, **arguments)
    ignorant = MinibatchSinkhorn(settings).plans(q=torch.zeros_like(q), **arguments)
    assert column_marginal_error(informed.transport_plan) < 1e-4
    assert (informed.transport_plan * q).sum() > (ignorant.transport_plan * q).sum() + 0.5


@pytest.mark.parametrize("parametrisation", ["dot-product", "normalised", "log-density"])
@pytest.mark.parametrize("bound", ["fenchel", "donsker-varadhan"])
def test_q_is_trained_on_the_bound_and_parametrisation_that_were_chosen(parametrisation, bound):
    model = algorithm(
        open_dataset("gaussians"), "quick", styles=2, parametrisation=parametrisation, information_bound=bound
    )
    settings, distribution, replay = model.settings, model.code_distribution, random()
    z, y = settings.latent_space.draw(16, replay), model.dataset.draw(16, replay)
    networks = copy.deepcopy(model.networks).train()
    scores = networks.code_head(networks.trunk(y))
    q = distribution.pairwise(z[:, : settings.latent_space.informative], scores)
    cost = model.ground_cost(networks.generator(z), y) - settings.lambda_ * q
    plan = sinkhorn(cost, epsilon=settings.epsilon, iterations=settings.sinkhorn_iterations).transport_plan
    bounds = information_bounds(plan, q, distribution.log_partition(scores))
    expected = {"fenchel": bounds.fenchel, "donsker-varadhan": bounds.donsker_varadhan}[bound]
    weights = list(networks.code_head.parameters())
    gradients = torch.autograd.grad(expected, weights)

    statistics = model.iterate(1, random())
    assert statistics["information"].item() == pytest.approx(expected.item(), abs=1e-5)
    # Adam's first step is against the sign of the gradient of the loss, so with that of the bound.
    moved = [b - a for a, b in zip(weights, model.networks.code_head.parameters(), strict=True)]
    large = [gradient.abs() > 1e-4 for gradient in gradients]
    assert sum(int(each.sum()) for each in large) > 100
    for movement, gradient, where in zip(moved, gradients, large, strict=True):
        assert torch.equal(movement[where].sign(), gradient[where].sign())


def test_normalising_q_for_each_image_costs_the_exact_plan_nothing():
    plain, normalised = (
        algorithm(open_dataset("gaussians"), "quick", parametrisation=kind) for kind in ("dot-product", "normalised")
    )
    space = plain.settings.latent_space
    z, scores = space.draw(16, random(1))[:, : space.informative], 3 * torch.randn(16, 25, generator=random(2))
    cost = torch.rand(16, 16, generator=random(3))
    plans = []
    for model in (plain, normalised):
        solver = MinibatchSinkhorn(preset_configuration("gaussians", "quick", sinkhorn_iterations=500))
        q = model.code_distribution.pairwise(z, scores)
        plans.append(solver.plans(cost=cost, q=q, real_features=scores, self_cost=None, generated=scores))
    torch.testing.assert_close(plans[0].transport_plan, plans[1].transport_plan, atol=1e-6, rtol=1e-3)


def test_at_the_target_the_expected_loss_is_zero():
    """With independent z' and z'' and G♯ζ = ν the three terms cancel; a self cost of one batch would not."""
    settings = preset_configuration("eight-gaussians", "quick", lambda_=0.0, batch_size=64, sinkhorn_iterations=30)
    dataset, solver, draws = open_dataset("eight-gaussians"), MinibatchSinkhorn(settings), random()
    losses = []
    for _ in range(60):
        x, y, x1, x2 = (dataset.draw(64, draws) for _ in range(4))
        plans = solver.plans(
            cost=(x[:, None] - y).abs().sum(2),
            q=torch.zeros(64, 64),
            real_features=x,
            self_cost=(x1[:, None] - x2).abs().sum(2),
            generated=x2,
        )
        losses.append(plans.value - plans.self_value)
    values = torch.stack(losses)
    standard_error = values.std() / math.sqrt(len(values))
    assert values.mean().abs() < 4 * standard_error
    x = dataset.draw(64, draws)
    own = solver.plans(
        cost=(x[:, None] - x).abs().sum(2), q=torch.zeros(64, 64), real_features=x, self_cost=None, generated=x
    )
    assert plans.self_value - own.value > 4 * standard_error


def test_the_invariance_information_is_that_of_the_joint_law():
    certain = 50 * torch.eye(4).repeat(5, 1)
    assert invariance_information(certain, certain).item() == pytest.approx(math.log(4), abs=1e-4)
    assert invariance_information(certain, torch.zeros(20, 4)).item() == pytest.approx(0, abs=1e-6)
    collapsed = torch.zeros(20, 4)
    collapsed[:, 0] = 50
    assert invariance_information(collapsed, collapsed).item() == pytest.approx(0, abs=1e-5)


def test_views_stay_in_range_and_keep_the_image_recognisable(mnist):
    images = mnist.draw(200, random(3))
    views = deform(images, random(4), -1.0)
    assert views.shape == images.shape
    assert views.min() >= -1.0001
    assert views.max() <= 1.0001
    assert not torch.equal(views, images)
    ink, view_ink = (images + 1).sum((1, 2, 3)), (views + 1).sum((1, 2, 3))
    assert ((view_ink / ink) > 0.4).all()
    assert ((view_ink / ink) < 2.5).all()
