"""A run on disk: resuming, stopping, and what happens when something goes wrong."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from infosink.training.configuration import Configuration, ConfigurationError, preset_configuration
from infosink.training.datasets import Dataset, open_dataset
from infosink.training.run_directory import RunDirectory, RunDirectoryError
from infosink.training.trainer import FORECAST_AT, Schedule, Trainer, TrainingDivergedError
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


class Recorder:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.forecasts: list[float] = []

    def tick(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def forecast(self, seconds_per_iteration: float) -> None:
        self.forecasts.append(seconds_per_iteration)


def trainer(path: Path, settings: Configuration, dataset: Dataset, resume: bool = False) -> Trainer:
    if resume:
        made = Trainer(RunDirectory.open(path), settings, dataset, CPU)
        made.resume()
        return made
    run = RunDirectory.create(path)
    run.write_configuration(settings, {"options": {}, "facts": {}})
    return Trainer(run, settings, dataset, CPU)


def train(made: Trainer, schedule: Schedule | None = None, stop_at: int | None = None) -> Recorder:
    recorder = Recorder()
    made.train(schedule or Schedule(2, 0, 0), recorder, lambda: made.iteration == stop_at)
    return recorder


def untimed(path: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in {"seconds", "samples_per_second"}} for line in lines]


@pytest.mark.parametrize(
    ("name", "preset", "overrides"),
    [
        ("gaussians", "paper", dict(batch_size=32)),
        ("gaussians", "paper", dict(batch_size=32, dual_update="joint", averaging=0.9)),
        ("mnist", "quick", dict(batch_size=8, view_batch_size=8, listening_from=1, averaging=0.9)),
        ("mnist", "paper", dict(batch_size=8, dual_steps=1)),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(name, preset, overrides, tmp_path, mnist_directory):
    dataset = open_dataset(name, data_directory=mnist_directory if name == "mnist" else None)
    settings = preset_configuration(name, preset, iterations=6, **overrides)
    train(trainer(tmp_path / "whole", settings, dataset))
    train(trainer(tmp_path / "parts", settings, dataset), stop_at=2)
    train(trainer(tmp_path / "parts", settings, dataset, resume=True), stop_at=4)
    train(trainer(tmp_path / "parts", settings, dataset, resume=True))
    whole, parts = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "parts")


def test_a_stop_between_ticks_is_resumed_without_a_gap_in_the_log(tmp_path):
    """The log of a killed run may be ahead of its checkpoint; what is past it is written again, once."""
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=8, batch_size=8)
    made = trainer(tmp_path / "run", settings, dataset)
    train(made, Schedule(1, 0, 3), stop_at=4)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as log:
        log.write('{"iteration": 5, "loss": 1.0}\n{"iterat')
    train(trainer(tmp_path / "run", settings, dataset, resume=True), Schedule(1, 0, 0))
    assert [record["iteration"] for record in untimed(tmp_path / "run")] == list(range(1, 9))


def test_ticks_pictures_checkpoints_and_the_forecast_come_when_they_should(tmp_path):
    dataset = open_dataset("eight-gaussians")
    settings = preset_configuration("eight-gaussians", "quick", iterations=FORECAST_AT + 5, batch_size=8)
    recorder = train(trainer(tmp_path, settings, dataset), Schedule(10, 20, 0))
    assert [record["iteration"] for record in recorder.records] == [10, 20, 25]
    assert len(recorder.forecasts) == 1
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["000020.png", "000025.png"]
    for name in ("dual_value", "self_dual_value", "information", "plan_perplexity", "column_marginal_error", "spread"):
        assert all(isinstance(record[name], float) for record in recorder.records)
    assert not list(tmp_path.rglob("*partial*"))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    dataset = open_dataset("gaussians")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(
            trainer(tmp_path / name, preset_configuration("gaussians", iterations=2, batch_size=8, seed=seed), dataset)
        )
    a, b, c = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["networks.generator.0.weight"], c["networks.generator.0.weight"])


def test_a_nan_stops_the_run_names_the_iteration_and_keeps_the_checkpoint(tmp_path):
    dataset = open_dataset("gaussians")
    settings = preset_configuration("gaussians", iterations=50, batch_size=8)
    made = trainer(tmp_path, settings, dataset)
    train(made, Schedule(2, 0, 0), stop_at=4)
    good = (tmp_path / "checkpoint.safetensors").read_bytes()
    with torch.no_grad():
        made.networks.generator[0].weight[0, 0] = float("nan")
    with pytest.raises(TrainingDivergedError, match=r"at iteration 5: .*dual_value.*checkpoint of iteration 4 is kept"):
        train(made, Schedule(20, 0, 0))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == good


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path):
    """A real write that the system cuts off: files may not grow past a limit set in another process."""
    script = """
import resource, signal, sys, torch
from pathlib import Path
from infosink.training.run_directory import RunDirectory, RunDirectoryError
run = RunDirectory(Path(sys.argv[1]))
run.write_checkpoint({"weights": torch.ones(1000)}, {"iteration": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    run.write_checkpoint({"weights": torch.zeros(1_000_000)}, {"iteration": 2})
except RunDirectoryError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert "the earlier checkpoint is kept" in done.stdout
    tensors, header, _ = RunDirectory(tmp_path).read_checkpoint()
    assert header == {"iteration": 1}
    assert tensors["weights"].sum() == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is damaged"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "is damaged"),
        (lambda path: save_file({"weights": torch.ones(2)}, path), "not a checkpoint of infosink-train"),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path, damage, message):
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=1, batch_size=8)
    train(trainer(tmp_path, settings, dataset))
    damage(tmp_path / "checkpoint.safetensors")
    with pytest.raises(RunDirectoryError, match=message):
        trainer(tmp_path, settings, dataset, resume=True)


def test_a_checkpoint_of_other_networks_is_refused(tmp_path):
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=1, batch_size=8)
    train(trainer(tmp_path, settings, dataset))
    other = preset_configuration("gaussians", iterations=2, batch_size=8, noise=7)
    with pytest.raises(RunDirectoryError, match=r"does not fit config.json"):
        trainer(tmp_path, other, dataset, resume=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(epsilon=0.0), "--epsilon is 0.0; it must be positive"),
        (dict(epsilon=float("nan")), "--epsilon is nan"),
        (dict(lambda_=-1.0), "--lambda is -1.0"),
        (dict(adam_beta2=1.0), "--adam-beta2 is 1.0"),
        (dict(batch_size=1), "--batch-size is 1; it must be at least 2"),
        (dict(categories=1), "--categories is 1"),
        (dict(solver="simplex"), "--solver is 'simplex'; choose from neural-duals, sinkhorn"),
        (dict(invariance=1.0), "use --solver sinkhorn"),
        (dict(listening=1.0), "set --invariance"),
        (dict(epsilon="large"), "must be of type float"),
        (dict(depth=3), "unknown settings: depth"),
    ],
)
def test_a_bad_hyperparameter_is_named_with_its_limit(overrides, message):
    with pytest.raises(ConfigurationError) as raised:
        preset_configuration("mnist", **overrides)
    assert message in str(raised.value)


def test_the_paper_presets_are_tables_1_and_2():
    gaussians, mnist = preset_configuration("gaussians"), preset_configuration("mnist")
    assert (gaussians.categories, gaussians.styles, gaussians.noise) == (25, 0, 103)
    assert (gaussians.epsilon, gaussians.lambda_, gaussians.dual_steps, gaussians.iterations) == (1.5, 1.0, 5, 50_000)
    assert (gaussians.adam_beta1, gaussians.adam_beta2) == (0.0, 0.9)
    assert (mnist.categories, mnist.styles, mnist.noise) == (10, 2, 88)
    assert (mnist.epsilon, mnist.lambda_, mnist.dual_steps, mnist.iterations) == (0.05, 0.05, 5, 24_200)
    assert (mnist.adam_beta1, mnist.adam_beta2, mnist.code_weight_decay) == (0.5, 0.99, 1e-3)
    for settings in (gaussians, mnist):
        assert (settings.ground_cost, settings.solver, settings.dual_update) == ("l1", "neural-duals", "sequential")
        assert settings.dual_learning_rate == settings.generator_learning_rate == settings.code_learning_rate == 2e-4
        assert (settings.invariance, settings.listening, settings.averaging) == (0, 0, 0)
