"""Images side by side, the order of categories, figures 3 and 4, and files that are whole or not there."""

import json

import pytest
import torch
from infosink.training.datasets import open_dataset
from infosink.training.figures import categories, traversals
from infosink.training.figures.categories import category_names, category_order
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
    assert category_names(models["mnist-baseline"]) == [str(each) for each in category_order(models["mnist-baseline"])]


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
    assert [text.get_text() for text in panels[3].get_xticklabels()] == category_names(models["mnist"])
    assert drawing.numbers["mnist, informative"]["their labels"][:3] == ["0", "1", "1"]
    assert drawing.numbers["mnist, baseline"]["settings"]["lambda"] == 0
    assert 1 <= drawing.numbers["gaussians, informative"]["modes"] + 1 <= 9
    assert drawing.numbers["gaussians, informative"]["checkpoint_sha256"] == "0" * 64


def test_figure_4_moves_one_latent_at_a_time(models):
    with torch.no_grad():  # a generator that is deaf to z2
        models["mnist"].networks.generator[0].weight[:, 10] = 0
    drawing = traversals.draw((models["mnist-baseline"], models["mnist"]), seed=3)
    change = "change from end to end, mean over pixels"
    assert all(value > 0 for value in drawing.numbers["baseline"][change].values())
    informative = drawing.numbers["informative"][change]
    assert list(informative) == ["z2", "z3", "z4"]
    assert informative["z2"] == 0
    assert informative["z3"] > 0
    z2, z3 = (axes.get_images()[0].get_array() for axes in drawing.figure.get_axes()[3:5])
    assert (z2[:, :28] == z2[:, 270:298]).all()
    assert (z3[:, :28] != z3[:, 270:298]).any()


def test_an_earlier_figure_survives_a_failure(tmp_path):
    save(Drawing(page(1, 1), {"number": 1.0}), tmp_path, "figure")
    picture = (tmp_path / "figure.png").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(Drawing(page(2, 2), {"number": float("nan")}), tmp_path, "figure")
    assert json.loads((tmp_path / "figure.json").read_text()) == {"number": 1.0}
    assert (tmp_path / "figure.png").read_bytes() == picture
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.json", "figure.png"]
