"""Runs trained on the spot: finished ones are used again, interrupted ones continued, foreign ones left alone."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.figures import smoothing
from infosink.training.figures.runs import FigureError, FigureRun, train_run
from infosink.training.run_directory import RunDirectory, RunDirectoryError
from infosink.training.trained_model import load_trained_model, read_networks
from infosink.training.trainer import Trainer

CPU = torch.device("cpu")
SETTINGS = preset_configuration("eight-gaussians", "quick", batch_size=8, iterations=60)


def gaussian_run(path: Path, **changes: int) -> FigureRun:
    return FigureRun(path, dataclasses.replace(SETTINGS, **changes), open_dataset("eight-gaussians"))


def cut_short(run: FigureRun, monkeypatch: pytest.MonkeyPatch, method: str) -> RunDirectory:
    """Trains a run until a method of the trainer has been called, which then is interrupted."""
    whole = getattr(Trainer, method)

    def interrupted(self: Trainer, *arguments: object) -> None:
        whole(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, CPU)
    return RunDirectory.open(run.path)


def test_a_run_is_trained_once_continued_where_it_was_left_and_never_mixed_up(tmp_path, monkeypatch):
    whole = train_run(gaussian_run(tmp_path / "whole"), CPU)
    logged = [record["iteration"] for record in whole.read_metrics()]
    assert logged == [10, 20, 30, 40, 50, 60]

    for method, reached in (("checkpoint", 50), ("_log", 0)):
        run = gaussian_run(tmp_path / method)
        cut = cut_short(run, monkeypatch, method)
        assert cut.checkpoint_path.exists() == (reached > 0)
        train_run(run, CPU)
        assert cut.read_checkpoint().sha256 == whole.read_checkpoint().sha256
        assert [record["iteration"] for record in cut.read_metrics()] == logged

    before = whole.checkpoint_path.stat()
    train_run(gaussian_run(whole.path), CPU)
    assert whole.checkpoint_path.stat() == before
    with pytest.raises(FigureError, match=r"is a run with other settings \(iterations, seed\)"):
        train_run(gaussian_run(whole.path, iterations=70, seed=1), CPU)
    other = dataclasses.replace(gaussian_run(whole.path), dataset=open_dataset("eight-gaussians", sigma=0.5))
    with pytest.raises(FigureError, match="is a run on other data"):
        train_run(other, CPU)


def test_a_start_that_was_cut_short_does_not_stand_in_the_way_and_other_files_do(tmp_path):
    cut = gaussian_run(tmp_path / "cut", iterations=2)
    cut.path.mkdir()
    (cut.path / ".lock").touch()
    assert train_run(cut, CPU).read_checkpoint().header["iteration"] == 2
    full = gaussian_run(tmp_path / "full")
    full.path.mkdir()
    (full.path / "thesis.txt").write_text("years of work")
    with pytest.raises(FigureError, match="is not empty and holds no run: name another directory"):
        train_run(full, CPU)
    assert [path.name for path in full.path.iterdir()] == ["thesis.txt"]


def test_figure_1_reads_the_generator_that_a_model_read_back_has_and_asks_for_the_log(tmp_path):
    figure_run = gaussian_run(tmp_path / "run", iterations=2)
    run = train_run(figure_run, CPU)
    read, model = read_networks(run, figure_run.dataset), load_trained_model(run)
    latents = SETTINGS.latent_space.draw(20, torch.Generator().manual_seed(1))
    expected = model.networks.sampling_generator(latents)
    assert torch.equal(read.networks.sampling_generator(latents), expected)
    assert (read.iteration, read.checkpoint_sha256) == (2, model.checkpoint_sha256)
    with pytest.raises(RunDirectoryError, match="the data is not what the run was trained on: its sigma changed"):
        load_trained_model(run, dataset=open_dataset("eight-gaussians", sigma=0.5))
    (run.path / "metrics.jsonl").unlink()
    with pytest.raises(FigureError, match="lacks its last iteration: remove that directory"):
        smoothing.draw([figure_run], CPU, lambda _: None)


@pytest.mark.slow
def test_figure_1_measures_the_collapse_of_the_smoothed_loss(tmp_path, few_digits: Path):
    """Even some iterations on a few digits pull the samples of W alone together."""
    dataset = open_dataset("mnist", data_directory=few_digits)
    runs = [
        dataclasses.replace(run, settings=dataclasses.replace(run.settings, batch_size=16, iterations=12, noise=16))
        for run in smoothing.figure_runs(True, 0, dataset, tmp_path, "figure-1", few_digits)[:2]
    ]
    said: list[str] = []
    drawing = smoothing.draw(runs, CPU, said.append)
    assert len(said) == 2
    panels = drawing.numbers["panels"]
    assert [panel["settings"]["debias"] for panel in panels] == [False, True]
    assert 2 * panels[0]["spread"] < panels[1]["spread"]
    assert 0.2 < panels[0]["real cost, mean"] < 0.3
    assert json.loads(json.dumps(drawing.numbers))["data"]["training_samples"] == 400
    footer = " ".join(drawing.figure.get_supxlabel().split())
    assert "means over pixels in [−1, 1]" in footer
    assert "marginal error at ε = 0.05" in footer
