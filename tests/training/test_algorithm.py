"""Algorithm 1: what each step computes, and what it may and may not change."""

import copy
import math

import pytest
import torch
from infosink.training.algorithm import InformativeSinkhorn
from infosink.training.configuration import Configuration, preset_configuration
from infosink.training.datasets import Dataset, open_dataset
from infosink.training.information import log_partition
from infosink.training.invariance import deform, invariance_information
from infosink.training.networks import Networks
from infosink.training.solvers import MinibatchSinkhorn, NeuralDuals
from infosink.training.trainer import make_networks
from infosink.training.transport import column_marginal_error
from torch import Tensor

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
    model = algorithm(mnist, "quick", invariance=0.0, listening=0.0)
    before = copy.deepcopy(model.networks.state_dict())
    model.iterate(1, random())
    assert changed(before, model.networks) == {"generator", "code_head", "trunk"}


def test_without_debiasing_the_self_potential_is_not_trained(mnist):
    model = algorithm(mnist, debias=False)
    before = copy.deepcopy(model.networks.state_dict())
    statistics = model.iterate(1, random())
    assert "self_potential" not in changed(before, model.networks)
    assert statistics["self_dual_value"] == 0


def test_listening_moves_the_generator_and_not_q(mnist):
    """Two models differ in μ alone: after one step their Q is the same and their G is not."""
    models = [algorithm(mnist, "quick", listening=mu, listening_from=0) for mu in (0.0, 0.5)]
    for model in models:
        model.iterate(1, random())
    without, with_listening = (model.networks.state_dict() for model in models)
    differing = {name.split(".")[0] for name in without if not torch.equal(without[name], with_listening[name])}
    assert differing == {"generator"}


def test_listening_waits_for_its_iteration(mnist):
    model = algorithm(mnist, "quick", listening=0.5, listening_from=1)
    assert "listening" not in model.iterate(1, random())
    assert "listening" in model.iterate(2, random())


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


def test_the_dual_values_are_equations_24_and_27(monkeypatch):
    """L2 and L4 spelled out, term by term in float64, on the minibatch that the step drew."""
    dataset = open_dataset("gaussians")
    model = algorithm(dataset)
    solver, networks, settings = model.solver, model.networks, model.settings
    assert isinstance(solver, NeuralDuals)
    space, size, epsilon, lambda_ = settings.latent_space, settings.batch_size, settings.epsilon, settings.lambda_
    value = solver._data_value(dataset, random(7)).item()
    replay = random(7)
    z, y = space.draw(size, replay), dataset.draw(size, replay)
    with torch.no_grad():
        x, features = networks.generator(z).double(), networks.trunk(y)
        d2 = networks.potential(features)[:, 0].double()
        scores = networks.code_head(features).double()
    total = d2.mean()
    for i in range(size):
        terms = [
            (d2[j] + lambda_ * (z[i, : space.informative].double() * scores[j]).sum() - (x[i] - y[j]).abs().sum())
            / epsilon
            for j in range(size)
        ]
        total += -epsilon * (torch.logsumexp(torch.stack(terms), 0) - math.log(size)) / size
    assert value == pytest.approx(total.item(), rel=1e-5)

    value = solver._self_value(random(8)).item()
    replay = random(8)
    with torch.no_grad():
        x1, x2 = (networks.generator(space.draw(size, replay)) for _ in range(2))
        d4 = networks.self_potential(networks.trunk(x2))[:, 0].double()
    cost = (x1[:, None] - x2[None]).abs().sum(2).double()
    soft = -epsilon * (torch.logsumexp((d4 - cost) / epsilon, 1) - math.log(size))
    assert value == pytest.approx((soft.mean() + d4.mean()).item(), rel=1e-5)


def calibrated_problem(solver_class) -> tuple[Tensor, Tensor, Configuration]:
    settings = preset_configuration("gaussians", batch_size=64)
    cost = torch.rand(64, 64, generator=random(1)) * 4
    q = 4 * torch.randn(64, 64, generator=random(2))
    return cost, q, settings


def test_without_q_inside_the_transform_the_plan_is_no_coupling():
    """Equation (25) as printed omits λQ; (29) then has rows, and a total mass, far from those of a coupling."""
    cost, q, settings = calibrated_problem(NeuralDuals)
    potential = torch.zeros(64)
    printed = -settings.epsilon * (torch.logsumexp((potential - cost) / settings.epsilon, 1) - math.log(64))
    density = torch.exp((printed[:, None] + potential + settings.lambda_ * q - cost) / settings.epsilon)
    assert density.mean().item() > 2
    dataset = open_dataset("gaussians")
    model = algorithm(dataset, batch_size=64)
    plans = model.solver.plans(
        cost=cost, q=q, real_features=torch.randn(64, 512), self_cost=None, generated=torch.randn(64, 2)
    )
    torch.testing.assert_close(plans.transport_plan.sum(1), torch.full((64,), 1 / 64))


def test_sinkhorn_plans_are_couplings_that_favour_q():
    cost, q, settings = calibrated_problem(MinibatchSinkhorn)
    settings = preset_configuration("gaussians", "quick", batch_size=64, sinkhorn_iterations=200)
    arguments = dict(cost=cost, real_features=torch.zeros(64, 1), self_cost=cost, generated=torch.zeros(64, 2))
    informed = MinibatchSinkhorn(settings).plans(q=q, **arguments)
    ignorant = MinibatchSinkhorn(settings).plans(q=torch.zeros_like(q), **arguments)
    assert column_marginal_error(informed.transport_plan) < 1e-4
    assert (informed.transport_plan * q).sum() > (ignorant.transport_plan * q).sum() + 0.5


def test_the_reported_loss_is_the_full_objective(mnist):
    model = algorithm(mnist)
    model.networks.train()
    recorded = {}
    original = model._read

    def record(y: Tensor) -> tuple[Tensor, Tensor]:
        recorded["scores"] = original(y)[1]
        return original(y)

    model._read = record  # type: ignore[method-assign]
    statistics = model.update_generator_and_q(1, random())
    penalty = log_partition(recorded["scores"].detach(), 10).exp().mean() - 1
    expected = statistics["dual_value"] - 0.5 * statistics["self_dual_value"] + model.settings.lambda_ * penalty
    assert statistics["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


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
    views = deform(images, random(4))
    assert views.shape == images.shape
    assert views.min() >= -1.0001
    assert views.max() <= 1.0001
    assert not torch.equal(views, images)
    ink, view_ink = (images + 1).sum((1, 2, 3)), (views + 1).sum((1, 2, 3))
    assert ((view_ink / ink) > 0.4).all()
    assert ((view_ink / ink) < 2.5).all()
