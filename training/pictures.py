"""Pictures of what a generator has learned so far."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .datasets import Dataset
from .latent import LatentSpace
from .networks import Networks, running_statistics_kept

_ROWS = 10
_SCALE = 2
_GUTTER = 1
_CANVAS = 640
_POINTS = 2_500


class SnapshotLatents:
    """Fixed latents, so that pictures of different iterations can be laid side by side.

    For images a grid as in Figure 3: categories along the columns, one draw of the noise along
    each row, styles at 0. For points, draws from the prior.
    """

    def __init__(self, latent_space: LatentSpace, dataset: Dataset, random: torch.Generator) -> None:
        device = random.device
        self.frame = dataset.frame
        self.latent_space = latent_space
        self.real = dataset.draw(_POINTS, random) if self.frame is None else None
        if self.frame is None:
            self.latents = latent_space.draw(_POINTS, random)
        else:
            category = torch.arange(latent_space.categories, device=device).repeat(_ROWS)
            noise = torch.randn(_ROWS, latent_space.noise, generator=random, device=device)
            noise = noise.repeat_interleave(latent_space.categories, dim=0)
            style = torch.zeros(len(category), latent_space.styles, device=device)
            self.latents = latent_space.assemble(category, style, noise)

    @torch.no_grad()
    def save(self, networks: Networks, path: Path) -> None:
        """Draws the latents' samples, normalised by their own batch, and writes them as a PNG."""
        generator = networks.sampling_generator
        was_training = generator.training
        generator.train()
        with running_statistics_kept(generator):
            samples = generator(self.latents)
        generator.train(was_training)
        if self.real is None:
            picture = image_grid(samples, self.latent_space.categories)
        else:
            picture = point_scatter(samples, self.latent_space.category_of(self.latents), self.real)
        picture.save(path, format="PNG")


def image_grid(images: Tensor, columns: int) -> Image.Image:
    """A grid of images (count, channels, height, width) in [-1, 1], `columns` in a row."""
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    count, channels, height, width = levels.shape
    rows = -(-count // columns)
    step_y, step_x = height + _GUTTER, width + _GUTTER
    canvas = torch.full((channels, rows * step_y - _GUTTER, columns * step_x - _GUTTER), 96, dtype=torch.uint8)
    for i, image in enumerate(levels):
        top, left = (i // columns) * step_y, (i % columns) * step_x
        canvas[:, top : top + height, left : left + width] = image
    array = canvas[0].numpy() if channels == 1 else canvas.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * _SCALE, picture.height * _SCALE), Image.Resampling.NEAREST)


def point_scatter(points: Tensor, categories: Tensor, real: Tensor) -> Image.Image:
    """Generated points (count, 2), coloured by category, over real ones in grey."""
    picture = Image.new("RGB", (_CANVAS, _CANVAS), "white")
    draw = ImageDraw.Draw(picture)
    reach = float(real.abs().max()) * 1.2
    number = max(1, int(categories.max()) + 1)

    def dot(point: list[float], colour: str, radius: int) -> None:
        x, y = ((coordinate / reach + 1) / 2 * _CANVAS for coordinate in (point[0], -point[1]))
        if 0 <= x < _CANVAS and 0 <= y < _CANVAS:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    for point in real.tolist():
        dot(point, "#cccccc", 3)
    for point, category in zip(points.tolist(), categories.tolist(), strict=True):
        # Steps of the golden angle keep the colours of neighbouring categories apart.
        dot(
            point, f"hsl({round(category * 137.508) % 360}, 85%, {38 + 14 * (category % (2 if number > 8 else 1))}%)", 1
        )
    return picture
