"""The plan side of a model, against independent solutions of the same minibatches."""

import copy

import numpy as np
import ot
import pytest
import torch
from infosink.training.algorithm import InformativeSinkhorn
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.evaluation.plans import exact_solution, measure_plans
from infosink.training.networks import inference_copy
from infosink.training.trained_model import TrainedModel
from infosink.training.trainer import make_networks
from torch import Tensor, nn


def model(preset: str, trained_for: int = 0, **overrides) -> TrainedModel:
    dataset = open_dataset("gaussians")
    settings = preset_configuration("gaussians", preset, **({"batch_size": 64} | overrides))
    networks, random = make_networks(settings, dataset.sample_shape), torch.Generator().manual_seed(7)
    algorithm = InformativeSinkhorn(networks, dataset, settings)
    for iteration in range(trained_for):
        algorithm.iterate(iteration + 1, random)
    networks = inference_copy(networks, [dataset.draw(100, random)], [settings.latent_space.draw(100, random)])
    return TrainedModel(settings, dataset, networks, [], "0" * 64, trained_for)


class Centre(nn.Module):
    """A generator of one point."""

    def forward(self, latents: Tensor) -> Tensor:
        return torch.zeros(len(latents), 2)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("epsilon", [0.05, 1.5])
def test_the_exact_value_is_that_of_an_independent_solver(epsilon):
    draws = random()
    x, y = torch.randn(30, 2, generator=draws), 2 * torch.randn(40, 2, generator=draws)
    cost = torch.cdist(x, y).double()
    a, b = np.full(30, 1 / 30), np.full(40, 1 / 40)
    plan = ot.sinkhorn(a, b, cost.numpy(), epsilon, method="sinkhorn_log", numItermax=20_000, stopThr=1e-12)
    divergence = (plan * np.log(np.maximum(plan * 1200, 1e-300))).sum()
    expected = (plan * cost.numpy()).sum() + epsilon * divergence
    assert exact_solution(cost, epsilon).value.item() == pytest.approx(expected, abs=1e-6)


def test_the_dual_gap_shrinks_with_the_work_a_solver_does():
    few, many = (measure_plans(model("quick", sinkhorn_iterations=count), 3, random()) for count in (1, 300))
    assert few.dual_gap > 100 * abs(many.dual_gap)
    assert abs(many.dual_gap) < 1e-4
    assert abs(many.self_dual_gap) < 1e-4
    assert many.column_marginal_error < 1e-4 < few.column_marginal_error
    untrained, trained = (measure_plans(model("paper", trained_for=steps), 3, random()) for steps in (0, 40))
    assert 0 < trained.dual_gap < untrained.dual_gap


def test_plans_too_sharp_to_converge_are_told_from_exact_ones():
    exact, sharp = (
        measure_plans(model("quick", batch_size=8, debias=False, epsilon=epsilon), 1, random())
        for epsilon in (0.5, 1e-6)
    )
    assert exact.convergence_error <= 1e-6
    assert sharp.convergence_error > 1e-4


def test_the_bounds_are_ordered_and_a_code_that_nobody_reads_carries_nothing():
    found = measure_plans(model("quick", trained_for=30, sinkhorn_iterations=300), 5, random())
    assert found.fenchel <= found.donsker_varadhan + 1e-6
    assert found.donsker_varadhan <= found.per_sample + 1e-4
    silent = model("quick")
    for parameter in silent.networks.code_head[-1].parameters():
        parameter.zero_()
    assert measure_plans(silent, 2, random())[:3] == pytest.approx((0, 0, 0), abs=1e-6)


def test_a_large_epsilon_couples_every_latent_with_all_points():
    assert measure_plans(model("quick", epsilon=1e4), 2, random()).perplexity == pytest.approx(64, rel=1e-3)


def test_without_the_self_term_it_has_no_gap():
    assert measure_plans(model("quick", debias=False), 2, random()).self_dual_gap == 0


def test_the_generator_is_the_one_that_was_trained_and_not_its_average():
    trained = model("quick")
    expected = measure_plans(trained, 2, random())
    trained.networks.averaged_generator = Centre()
    assert measure_plans(trained, 2, random()) == expected


def test_measuring_leaves_the_model_as_it_was_and_repeats():
    measured = model("paper")
    before = copy.deepcopy(measured.networks.state_dict())
    assert measure_plans(measured, 2, random()) == measure_plans(measured, 2, random())
    assert all(torch.equal(value, before[name]) for name, value in measured.networks.state_dict().items())
    assert not measured.networks.training
