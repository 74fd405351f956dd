"""Runs trained on the spot: finished ones are used again, interrupted ones continued, foreign ones left alone."""

import dataclasses
from pathlib import Path

import pytest
import torch
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.figures import smoothing
from infosink.training.figures.runs import FigureError, train_run, trained_generator
from infosink.training.run_directory import RunDirectory
from infosink.training.trainer import Trainer

CPU = torch.device("cpu")
SETTINGS = preset_configuration("eight-gaussians", "quick", batch_size=8, iterations=60)


def test_a_run_is_trained_once_continued_where_it_was_left_and_never_mixed_up(tmp_path, monkeypatch):
    dataset = open_dataset("eight-gaussians")
    whole = train_run(tmp_path / "whole", SETTINGS, dataset, {}, CPU)

    iterated = Trainer.checkpoint

    def interrupted(self: Trainer) -> None:
        iterated(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "cut", SETTINGS, dataset, {}, CPU)
    monkeypatch.undo()
    cut = RunDirectory.open(tmp_path / "cut")
    assert cut.read_checkpoint().header["iteration"] == 50
    train_run(cut.path, SETTINGS, dataset, {}, CPU)
    assert cut.read_checkpoint().sha256 == whole.read_checkpoint().sha256

    before = whole.checkpoint_path.stat()
    train_run(whole.path, SETTINGS, dataset, {}, CPU)
    assert whole.checkpoint_path.stat() == before
    with pytest.raises(FigureError, match="is a run with other settings"):
        train_run(whole.path, dataclasses.replace(SETTINGS, iterations=70), dataset, {}, CPU)


def test_the_generator_of_a_run_has_the_runs_weights_and_statistics_of_them(tmp_path, few_digits: Path):
    settings = preset_configuration("mnist", solver="sinkhorn", batch_size=8, iterations=2)
    dataset = open_dataset("mnist", data_directory=few_digits)
    run = train_run(tmp_path / "run", settings, dataset, {"data_directory": few_digits}, CPU)
    generator = trained_generator(run, settings, dataset)
    weights = run.read_checkpoint().tensors
    assert torch.equal(generator[0].weight, weights["networks.generator.0.weight"])
    latents = settings.latent_space.draw(200, torch.Generator().manual_seed(1))
    first_layer = generator[1](generator[0](latents))
    assert first_layer.mean().abs() < 0.05
    assert first_layer.std() == pytest.approx(1, abs=0.1)
    assert torch.allclose(generator(latents[:1]), generator(latents)[:1], atol=1e-5)


@pytest.mark.slow
def test_figure_1_measures_the_collapse_of_the_smoothed_loss(tmp_path, few_digits: Path):
    """Even some iterations on a few digits pull the samples of W alone together."""
    panels = [
        dataclasses.replace(settings, batch_size=16, iterations=12, noise=16)
        for settings in smoothing.panel_settings(quick=True, seed=0)[:2]
    ]
    dataset = open_dataset("mnist", data_directory=few_digits)
    said: list[str] = []
    drawing = smoothing.draw(panels, dataset, tmp_path, "figure-1", few_digits, CPU, said.append)
    assert len(said) == 2
    spread = [panel["spread"] for panel in drawing.numbers["panels"]]
    assert [panel["settings"]["debias"] for panel in drawing.numbers["panels"]] == [False, True]
    assert 2 * spread[0] < spread[1]
    assert 0.2 < drawing.numbers["panels"][0]["real cost, mean"] < 0.3
