"""Images side by side, the order of categories, figures 3 and 4, and files that are whole or not there."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from infosink.training.datasets import open_dataset
from infosink.training.evaluation.record import EvaluationError
from infosink.training.figures import categories, traversals
from infosink.training.figures.captions import caption, differences
from infosink.training.figures.categories import category_colours, category_names, category_order
from infosink.training.figures.drawing import Drawing, draw_images, page, save


def test_images_are_cropped_to_the_datas_own_frame_and_laid_out_in_reading_order(few_digits):
    images = torch.stack([torch.full((1, 32, 32), level) for level in (-1.0, -0.5, 0.0, 0.5, 1.0)])
    images[:, :, :2] = 7  # the padding of MNIST's frame
    axes = page(2, 2).subplots()
    draw_images(axes, images, 3, open_dataset("mnist", data_directory=few_digits), column_names="abc")
    (drawn,) = axes.get_images()
    grid = drawn.get_array()
    assert grid.shape == (2 * 30 - 2, 3 * 30 - 2)
    assert grid.max() == 1.0
    assert [float(grid[14, 14 + 30 * i]) for i in range(3)] == [-1.0, -0.5, 0.0]
    assert [float(grid[44, 14 + 30 * i]) for i in range(3)] == [0.5, 1.0, -1.0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.get_xticks()[1] == pytest.approx(30 + 13.5)


def test_categories_are_ordered_by_label_and_named_where_they_mean_something(models):
    assert category_order(models["mnist"]) == [4, 3, 1, 5, 0, 9, 7, 6, 8, 2]
    assert category_names(models["mnist"]) == ["0", "1", "1", "2", "3", "4", "5", "6", "7", "–"]
    assert category_order(models["mnist-baseline"]) == list(range(10))
    assert category_names(models["mnist-baseline"]) == []


@pytest.mark.parametrize("count", [1, 2, 8, 10, 24, 25])
def test_any_two_categories_differ_in_colour(count):
    colours = category_colours(count)
    assert colours.min() >= 0
    assert colours.max() <= 1
    distance = np.linalg.norm(colours[:, None] - colours, axis=2)
    assert (distance + np.eye(count)).min() > 0.2
    assert all(np.linalg.norm(after - before) > 0.5 for before, after in itertools.pairwise(colours))


def test_a_caption_says_what_two_runs_are_and_what_they_differ_in(models):
    baseline, informative = models["mnist-baseline"], models["mnist"]
    assert caption(baseline, informative) == (
        "mnist (IDX files other than MNIST's), 400 training samples: neural-duals, ε = 0.05, λ = 0 and 0.05, "
        "7 iterations; they differ in nothing but λ"
    )
    changed = dataclasses.replace(informative.configuration, solver="sinkhorn", invariance=1.0, over_clusters=50)
    other = dataclasses.replace(informative, configuration=changed, iteration=1200)
    said = caption(baseline, other)
    assert "neural-duals and sinkhorn, ε = 0.05, λ = 0 and 0.05, 7 and 1,200 iterations" in said
    assert said.endswith(
        "besides λ they differ in: solver (neural-duals and sinkhorn), iterations (7 and 1200), "
        "invariance (0 and 1), over clusters (0 and 50)"
    )
    assert differences(baseline, other)["over_clusters"] == (0, 50)


def test_figure_3_holds_noise_along_a_row_and_the_category_down_a_column(models):
    with torch.no_grad():  # a generator that hears the category alone
        models["mnist"].networks.generator[0].weight[:, 10:] = 0
    gaussians, digits = ((models[f"{data}-baseline"], models[data]) for data in ("gaussians", "mnist"))
    drawing = categories.draw(gaussians, digits, seed=1)
    panels = drawing.figure.get_axes()
    grid = panels[3].get_images()[0].get_array()
    assert grid.shape == (10 * 30 - 2, 10 * 30 - 2)
    rows = [grid[30 * i : 30 * i + 28] for i in range(10)]
    assert all((row == rows[0]).all() for row in rows)
    assert (rows[0][:, :28] != rows[0][:, 30:58]).any()
    assert [text.get_text() for text in panels[3].get_xticklabels()] == list("011234567–")
    assert panels[2].get_xticklabels() == []
    informative = drawing.numbers["mnist, informative"]
    assert informative["their labels"][:3] == ["0", "1", "1"]
    assert informative["label_share"][:3] == [0.5, 0.9, 0.6]
    assert informative["labels right"] == pytest.approx(0.5)
    assert "labels right for 50% of training images" in " ".join(text.get_text() for text in panels[3].texts)
    assert "their labels" not in drawing.numbers["mnist, baseline"]
    assert informative["data"]["training_samples"] == 400
    assert "they differ in nothing but λ" in drawing.figure.get_supxlabel()
    assert drawing.numbers["mnist, baseline"]["settings"]["lambda"] == 0
    assert drawing.numbers["gaussians, informative"]["modes"] == 0  # untrained, its samples lie far from all of them
    assert drawing.numbers["gaussians, informative"]["checkpoint_sha256"] == "0" * 64


def test_figure_4_moves_one_latent_at_a_time(models):
    with torch.no_grad():  # a generator that is deaf to z2
        models["mnist"].networks.generator[0].weight[:, 10] = 0
    drawing = traversals.draw((models["mnist-baseline"], models["mnist"]), seed=3)
    change = traversals.CHANGE
    assert all(value > 0 for value in drawing.numbers["baseline"][change].values())
    informative = drawing.numbers["informative"][change]
    assert list(informative) == ["z2", "z3", "z4"]
    assert informative["z2"] == 0
    assert informative["z3"] > 0
    z2, z3 = (axes.get_images()[0].get_array() for axes in drawing.figure.get_axes()[3:5])
    assert (z2[:, :28] == z2[:, 270:298]).all()
    assert (z3[:, :28] != z3[:, 270:298]).any()
    rows = [[text.get_text() for text in axes.get_yticklabels()] for axes in drawing.figure.get_axes()]
    assert rows == [[], [], [], list("011234567–"), [], []]
    below = drawing.figure.get_supxlabel()
    assert "all of a code's prior and 68% of the noise's" in below.replace("\n", " ")
    assert "right for 50% of training images" in below


def test_an_earlier_figure_survives_a_failure(tmp_path):
    save(Drawing(page(1, 1), {"number": 1.0}), tmp_path, "figure")
    picture = (tmp_path / "figure.png").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(Drawing(page(2, 2), {"number": float("nan")}), tmp_path, "figure")
    assert json.loads((tmp_path / "figure.json").read_text()) == {"number": 1.0}
    assert (tmp_path / "figure.png").read_bytes() == picture
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.json", "figure.png"]


def test_a_picture_stays_beside_its_own_numbers(tmp_path):
    save(Drawing(page(1, 1), {"number": 1.0}), tmp_path, "figure")
    assert json.loads((tmp_path / "figure.json").read_text()) == {"number": 1.0}
    (tmp_path / "blocked.png").mkdir()
    with pytest.raises(EvaluationError, match="cannot write"):
        save(Drawing(page(1, 1), {"number": 2.0}), tmp_path, "blocked")
    assert not (tmp_path / "blocked.json").exists()
