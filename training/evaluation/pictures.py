"""What an evaluation shows: samples, what was asked for against what was seen, and what every code does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .plots import confusion_matrix, correlation_heatmap, image_rows, scatter
from .points import PACGAN_SAMPLES, mixture_of
from .record import Evaluation
from .subject import Subject

_ROWS = 20  # of a grid, and of a matrix whose numbers can be read
_COLUMNS = 10
_STEPS = 9
_NOISE_END = 2.0


class Picture(NamedTuple):
    """A picture of the report: its file's name, what it shows, and the PNG file's contents."""

    name: str
    caption: str
    png: bytes


def of_points(subject: Subject) -> Iterator[Picture]:
    """The pictures of a model of points."""
    asked = subject.model.configuration.latent_space.category_of(subject.latents[:PACGAN_SAMPLES])
    png = scatter(subject.generated[:PACGAN_SAMPLES], asked, subject.real[:PACGAN_SAMPLES], mixture_of(subject).centres)
    yield Picture("samples.png", "Generated points, coloured by category, over real ones in grey; + is a centre.", png)


def of_images(subject: Subject, evaluation: Evaluation) -> Iterator[Picture]:
    """The pictures of a model of images, for what was measured on it."""
    dataset = subject.model.dataset
    kind = "label" if dataset.label_names else "category"
    titles, bearing = _rows(subject)
    png = image_rows(_drawn(subject, bearing), titles, f"Samples by {kind}")
    yield Picture("samples.png", f"Samples by {kind}, all else drawn from the prior; nothing was selected.", png)
    if evaluation.confusion and len(dataset.label_names) <= _ROWS:
        png = confusion_matrix(torch.tensor(evaluation.confusion), list(dataset.label_names))
        yield Picture("confusion.png", "The label asked for against the one that the classifier saw, % of a row.", png)
    panels = {f"λ = {evaluation.run['lambda']:g}": evaluation.styles}
    if evaluation.baseline:
        panels[f"baseline, λ = {evaluation.baseline['run']['lambda']:g}"] = evaluation.baseline["styles"]
    if panels := {title: styles for title, styles in panels.items() if styles and styles[0]["partial_correlation"]}:
        caption = "Rank correlations of style codes and image moments, partial on the category and the other codes."
        yield Picture("styles.png", caption, correlation_heatmap(panels))
    yield from _traversals(subject, evaluation, titles, bearing)


def _traversals(
    subject: Subject, evaluation: Evaluation, titles: list[str], bearing: list[Tensor]
) -> Iterator[Picture]:
    """Each style code swept, and a noise variable for comparison; the noise of all rows is the same."""
    latent_space = subject.model.configuration.latent_space
    noise = torch.randn(1, latent_space.noise, generator=subject.random("traversals")).repeat(len(bearing), 1)
    category = torch.stack([categories[0] for categories in bearing])
    middle = latent_space.assemble(category, torch.zeros(len(bearing), latent_space.styles), noise)
    for index, style in enumerate(evaluation.styles):
        title = f"Style code {index + 1}" + (f": {style['name']}" if style["meaning"] else "")
        values = torch.linspace(-1, 1, _STEPS)
        png = image_rows(_swept(subject, middle, latent_space.categories + index, values), titles, title, values)
        caption = f"{title}, from −1 to 1; noise shared by all rows, other style codes 0."
        yield Picture(f"style-{index + 1}.png", caption, png)
    if latent_space.noise:
        values = torch.linspace(-_NOISE_END, _NOISE_END, _STEPS)
        png = image_rows(
            _swept(subject, middle, latent_space.informative, values), titles, "First noise variable", values
        )
        yield Picture("noise-1.png", "The first noise variable, from −2 to 2, for comparison; style codes 0.", png)


def _rows(subject: Subject) -> tuple[list[str], list[Tensor]]:
    """The rows of a grid: each label, with the categories that bear it; without labels, each category."""
    categories, labels = subject.model.categories, subject.model.dataset.label_names
    if not labels:
        count = min(len(categories), _ROWS)
        return [str(index) for index in range(count)], list(torch.arange(count)[:, None])
    borne = {
        label: torch.tensor([index for index, category in enumerate(categories) if category.label == label])
        for label in labels
        if any(category.label == label for category in categories)
    }
    return list(borne)[:_ROWS], list(borne.values())[:_ROWS]


def _drawn(subject: Subject, bearing: list[Tensor]) -> Tensor:
    """Samples of each row: (rows, columns, channels, height, width)."""
    latent_space, random = subject.model.configuration.latent_space, subject.random("pictures")
    category = torch.cat([row[torch.randint(len(row), (_COLUMNS,), generator=random)] for row in bearing])
    latents = latent_space.draw(len(category), random)
    latents[:, : latent_space.categories] = F.one_hot(category, latent_space.categories)
    samples = subject.generate(latents)
    return samples.view(len(bearing), _COLUMNS, *samples.shape[1:])


def _swept(subject: Subject, latents: Tensor, column: int, values: Tensor) -> Tensor:
    """Samples of each latent with one coordinate swept: (rows, steps, channels, height, width)."""
    swept = latents.repeat_interleave(len(values), dim=0)
    swept[:, column] = values.repeat(len(latents))
    samples = subject.generate(swept)
    return samples.view(len(latents), len(values), *samples.shape[1:])
