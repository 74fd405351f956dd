"""A run on disk: resuming, stopping, and what happens when something goes wrong."""

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from infosink.training.configuration import Configuration, ConfigurationError, preset_configuration
from infosink.training.datasets import Dataset, open_dataset
from infosink.training.progress import ProgressReporter
from infosink.training.run_directory import RunDirectory, RunDirectoryError
from infosink.training.trainer import FORECAST_AT, Schedule, Trainer, TrainingDivergedError
from rich.console import Console
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


class Recorder:
    def __init__(self) -> None:
        self.iterations: list[int] = []
        self.records: list[dict[str, Any]] = []
        self.forecasts: list[float] = []

    def iterated(self, iteration: int) -> None:
        self.iterations.append(iteration)

    def logged(self, record: dict[str, Any]) -> None:
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
        ("mnist", "paper", dict(batch_size=8, dual_steps=1, parametrisation="log-density")),
        (
            "mnist",
            "quick",
            dict(batch_size=8, over_clusters=10, merge_after=2, merge_samples=30, taught_until=3, anchor_labels=1),
        ),
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


def test_a_stop_between_lines_of_the_log_is_not_seen_in_it(tmp_path):
    """The log of a killed run may be ahead of its checkpoint; what is past it is written again, once."""
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=8, batch_size=8)
    train(trainer(tmp_path / "whole", settings, dataset), Schedule(4, 0, 0))
    train(trainer(tmp_path / "parts", settings, dataset), Schedule(4, 0, 0), stop_at=6)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as log:
        log.write('{"iteration": 7, "loss": 1.0}\n{"iterat')
    train(trainer(tmp_path / "parts", settings, dataset, resume=True), Schedule(4, 0, 0))
    assert untimed(tmp_path / "parts") == untimed(tmp_path / "whole")


def test_looking_more_often_does_not_change_what_is_learned(tmp_path):
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=6, batch_size=8)
    train(trainer(tmp_path / "seldom", settings, dataset), Schedule(6, 0, 0))
    train(trainer(tmp_path / "often", settings, dataset), Schedule(1, 2, 2))
    seldom, often = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("seldom", "often"))
    assert all(torch.equal(seldom[name], often[name]) for name in seldom)


def test_log_pictures_and_the_forecast_come_when_they_should(tmp_path):
    dataset = open_dataset("eight-gaussians")
    settings = preset_configuration("eight-gaussians", "quick", iterations=FORECAST_AT + 5, batch_size=8)
    recorder = train(trainer(tmp_path, settings, dataset), Schedule(10, 20, 0))
    assert [record["iteration"] for record in recorder.records] == [10, 20, 25]
    assert len(recorder.forecasts) == 1
    assert recorder.iterations == list(range(1, FORECAST_AT + 6))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["000020.png", "000025.png"]
    for name in ("dual_value", "self_dual_value", "information", "plan_perplexity", "column_marginal_error"):
        assert all(isinstance(record[name], float) for record in recorder.records)
    for record in recorder.records:
        assert 0 <= record["code_recovery"] <= 1
        assert record["code_information"] <= math.log(8)
        assert record["spread"] > 0
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
        train(made, Schedule(20, 0, 7))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == good


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path):
    """A real write that the system cuts off: files may not grow past a limit set in another process."""
    script = """
import resource, signal, sys, torch
from pathlib import Path
from infosink.training.progress import ProgressReporter
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


@pytest.mark.parametrize("write", ["write_configuration", "append_metrics", "forget_metrics_after", "write_picture"])
def test_a_full_disk_is_named_wherever_it_shows(tmp_path, write):
    script = """
import resource, sys
from pathlib import Path
from infosink.training.configuration import preset_configuration
from infosink.training.progress import ProgressReporter
from infosink.training.run_directory import RunDirectory, RunDirectoryError
run = RunDirectory(Path(sys.argv[1]))
run.append_metrics({"iteration": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (8, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
arguments = {
    "write_configuration": (preset_configuration("mnist"), {}),
    "append_metrics": ({"iteration": 2},),
    "forget_metrics_after": (1,),
    "write_picture": (1, lambda path: path.write_bytes(bytes(100))),
}
try:
    getattr(run, sys.argv[2])(*arguments[sys.argv[2]])
except RunDirectoryError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path, write], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert done.stdout.strip().endswith("free some space")
    assert not list(tmp_path.rglob("*partial*"))


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


def rewritten(path: Path, edit: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """A checkpoint with its tensors and header edited."""
    run = RunDirectory(path)
    tensors, header, _ = run.read_checkpoint()
    edit(tensors, header)
    run.write_checkpoint(tensors, header)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t, h: t.pop("optimisers.code.0.exp_avg"), "optimisers.code.0.exp_avg is missing"),
        (lambda t, h: t.update({"optimisers.code.0.exp_avg": torch.zeros(3)}), "of another shape"),
        (lambda t, h: t.update({"optimisers.trunk.0.exp_avg": torch.zeros(3)}), "belongs to no optimiser"),
        (lambda t, h: t.pop("networks.trunk.0.weight"), "networks are not those of config.json"),
        (lambda t, h: t.update(random=torch.zeros(3)), "random state"),
        (lambda t, h: h.update(device="cuda"), "trained on cuda: use --device cuda"),
        (lambda t, h: h.update(iteration="six"), "is damaged"),
        (lambda t, h: h.pop("log_counts"), "is damaged"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, edit, message):
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=2, batch_size=8)
    train(trainer(tmp_path, settings, dataset))
    rewritten(tmp_path, edit)
    with pytest.raises(RunDirectoryError, match=message):
        trainer(tmp_path, settings, dataset, resume=True)


@pytest.mark.parametrize(
    "overrides", [dict(noise=7), dict(generator_learning_rate=1e-3), dict(dual_update="joint", lambda_=0.5)]
)
def test_a_configuration_that_was_changed_is_refused_and_more_iterations_are_not(tmp_path, overrides):
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=1, batch_size=8)
    train(trainer(tmp_path, settings, dataset))
    other = preset_configuration("gaussians", iterations=1, batch_size=8, **overrides)
    changed = ", ".join(sorted(name.rstrip("_") for name in overrides))
    with pytest.raises(RunDirectoryError, match=rf"config.json is not what it was.*: {changed} changed"):
        trainer(tmp_path, other, dataset, resume=True)
    more = preset_configuration("gaussians", iterations=3, batch_size=8)
    assert trainer(tmp_path, more, dataset, resume=True).iteration == 1


def test_a_setting_that_came_to_be_later_does_not_part_a_run_from_its_checkpoint(tmp_path):
    """As if the run were older than the setting: neither file says a word of it."""
    dataset, settings = open_dataset("gaussians"), preset_configuration("gaussians", iterations=1, batch_size=8)
    train(trainer(tmp_path, settings, dataset))
    run = RunDirectory.open(tmp_path)
    tensors, header, _ = run.read_checkpoint()
    del header["configuration"]["information_bound"]
    run.write_checkpoint(tensors, header)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["information_bound"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert trainer(tmp_path, run.read_configuration()[0], dataset, resume=True).iteration == 1


@pytest.mark.parametrize("damage", [b"[1]\n", b'{"iteration": "x"}\n', b"\xff\n", b"{\n"])
def test_a_damaged_log_is_named(tmp_path, damage):
    (tmp_path / "metrics.jsonl").write_bytes(damage)
    with pytest.raises(RunDirectoryError, match=r"metrics.jsonl is damaged"):
        RunDirectory(tmp_path).read_metrics()


def test_what_is_not_a_number_is_null_in_the_log(tmp_path):
    RunDirectory(tmp_path).append_metrics({"iteration": 1, "spread": float("inf")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"iteration": 1, "spread": None}


def test_the_warm_up_is_forecast_for_itself():
    """It has a pace of its own, from which the rest does not follow."""
    settings = preset_configuration("mnist", "quick", iterations=1000, warm_up=100)
    console = Console(file=io.StringIO(), width=120)
    reporter = ProgressReporter(settings, 0, console=console)
    reporter.iterated(20)
    reporter.forecast(1.0)
    assert console.file.getvalue() == "forecast: 100 warm-up iterations at 1 s each, 80 s to go\n"
    reporter.iterated(120)
    reporter.forecast(2.0)
    assert "forecast: 900 iterations at 2 s each, 29 min to go" in console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_bar_and_every_number_of_health(width):
    settings = preset_configuration("gaussians", iterations=50_000)
    record = {
        "iteration": 20, "dual_value": 0.1234, "self_dual_value": 5.678, "information": 1.25, "code_information": 0.75,
        "plan_perplexity": 12.34, "column_marginal_error": 0.0567, "spread": 1.08, "samples_per_second": 2345.6,
    }  # fmt: skip
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, color_system=None, _environ={"TERM": "xterm"}
    )
    reporter = ProgressReporter(settings, 0, console=console)
    with reporter:
        for iteration in range(1, 21):
            reporter.iterated(iteration)
        reporter.forecast(2.0)
        reporter.logged(record)
    shown = console.file.getvalue()
    assert "27 h 46 min to go" in shown
    assert "--preset quick" in shown
    for number in (
        "gaussians",
        "20/50000",
        "0.1234",
        "5.678",
        "1.25 nats",
        "0.75 nats",
        "12.3",
        "0.057",
        "1.08",
        "2,346",
    ):
        assert number in shown
    assert re.search(r"\d+:\d\d:\d\d", shown)  # time left


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
