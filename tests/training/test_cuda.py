"""Training on a CUDA device: the same objective, and runs that resume."""

import pytest
import torch
from infosink.training.algorithm import InformativeSinkhorn
from infosink.training.checkpoint import capture
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.run_directory import RunDirectory
from infosink.training.trainer import Schedule, Trainer, make_networks

pytestmark = pytest.mark.gpu

PRESETS = [("mnist", "paper"), ("mnist", "quick"), ("gaussians", "paper"), ("gaussians", "quick")]


class Silent:
    def iterated(self, iteration):
        assert iteration > 0

    def logged(self, record):
        assert all(value == value for value in record.values())

    def forecast(self, seconds_per_iteration):
        assert seconds_per_iteration > 0


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_run_trains_stops_and_resumes(name, preset, tmp_path, mnist_directory):
    device = torch.device("cuda")
    dataset = open_dataset(name, data_directory=mnist_directory if name == "mnist" else None).to(device)
    settings = preset_configuration(name, preset, iterations=40)
    run = RunDirectory.create(tmp_path / "run")
    run.write_configuration(settings, {"options": {}, "facts": {}})
    first = Trainer(run, settings, dataset, device)
    assert not first.train(Schedule(10, 0, 0), Silent(), lambda: first.iteration == 25)
    second = Trainer(run, settings, dataset, device)
    second.resume()
    assert second.iteration == 25
    states = [capture(trainer.algorithm, trainer.random) for trainer in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    assert second.train(Schedule(10, 0, 0), Silent(), lambda: False)
    assert [record["iteration"] for record in run.read_metrics()] == [10, 20, 30, 40]


@pytest.mark.parametrize("name", ["mnist", "gaussians"])
def test_the_plans_are_those_of_the_cpu(name, mnist_directory, monkeypatch):
    """The same weights and minibatch on both devices, in full float32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    settings = preset_configuration(name, "paper", batch_size=32)
    cpu = open_dataset(name, data_directory=mnist_directory if name == "mnist" else None)
    torch.manual_seed(0)
    networks = make_networks(settings, cpu.sample_shape)
    draws = torch.Generator().manual_seed(1)
    z, y = settings.latent_space.draw(32, draws), cpu.draw(32, draws)
    plans = []
    for device in ("cpu", "cuda"):
        model = InformativeSinkhorn(networks.to(device), cpu.to(torch.device(device)), settings)
        with torch.no_grad():
            features = networks.trunk(y.to(device))
            q = z.to(device)[:, : settings.latent_space.informative] @ networks.code_head(features).T
            cost = model.ground_cost(networks.generator(z.to(device)), y.to(device))
        found = model.solver.plans(cost=cost, q=q, real_features=features, self_cost=None, generated=y.to(device))
        plans.append(found.transport_plan.cpu())
    torch.testing.assert_close(plans[0], plans[1], atol=1e-5, rtol=1e-3)
