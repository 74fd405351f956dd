"""Samples into files: one picture, one file of arrays, or a folder of images."""

import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from infosink.v1 import model_pb2
from numpy.typing import NDArray
from PIL import PngImagePlugin

from . import pictures
from .destination import Destination, Form
from .errors import UnwritableOutputError
from .frames import native_size
from .results import Samples, join_samples

_LARGEST_PICTURE = 100_000_000


def check_form(form: Form, count: int, space: model_pb2.SampleSpace, columns: int | None = None) -> None:
    """Makes sure, before any sample is drawn, that `count` samples of this space can be written in this form.

    Raises:
        UnwritableOutputError: If they cannot; the message names the form that can.
    """
    if form is Form.ARRAYS:
        return
    if space.HasField("point"):
        if form is Form.FOLDER:
            raise UnwritableOutputError(
                "points are no images for a folder; write them to a .npz or, in two dimensions, a .png"
            )
        if space.point.dimensions != 2:
            raise UnwritableOutputError(
                f"points of {space.point.dimensions} dimensions cannot be drawn; write them to a .npz"
            )
        return
    if space.image.channels not in (1, 3):
        raise UnwritableOutputError(f"images of {space.image.channels} channels cannot be drawn; write them to a .npz")
    height, width = pictures.grid_size(count, columns or pictures.near_square(count), *native_size(space.image))
    if form is Form.PICTURE and height * width > _LARGEST_PICTURE:
        raise UnwritableOutputError(
            f"a picture of {count} images would have {width} x {height} pixels, more than {_LARGEST_PICTURE:,}; "
            "draw fewer, or write them to a .npz or a folder"
        )


def write(destination: Destination, batches: Iterable[Samples], count: int) -> Samples:
    """Writes `count` samples, at least one, as the destination's form has it.

    A picture is a near-square grid of images or a scatter of points. Arrays are `samples`, images in the data set's
    native frame with no channel axis where they are grey; `category`, `label` and `style`; and the scalars that
    `origin` has. A folder holds one PNG a sample, named by its index and label. Each picture bears a note, which
    `origin_note` describes. Only a picture is held in memory as a whole.

    Args:
        destination: Where, checked by `Destination.check` and `check_form`.
        batches: Consecutive samples.
        count: How many samples they hold together.

    Returns:
        Their codes and origin, without the samples.

    Raises:
        UnwritableOutputError: If the disk is full, or the like; then nothing is left behind.
    """
    with destination.staged() as path:
        if destination.form is Form.ARRAYS:
            return _write_arrays(path, batches, count)
        if destination.form is Form.FOLDER:
            return _write_folder(path, batches)
        return _write_picture(path, join_samples(list(batches)))


def write_grid(
    destination: Destination,
    samples: Samples,
    *,
    columns: int,
    row_titles: Sequence[str],
    column_titles: Sequence[str],
) -> None:
    """Writes images as one picture with titles beside the rows and above the columns."""
    picture = pictures.grid(samples.samples, columns=columns, row_titles=row_titles, column_titles=column_titles)
    with destination.staged() as path:
        picture.save(path, format="PNG", pnginfo=origin_note(samples))


def origin(samples: Samples) -> dict[str, Any]:
    """What, with the codes, is needed to draw the samples again; `shared_noise_index` only where noise was shared."""
    shared = {} if samples.shared_noise_index is None else {"shared_noise_index": samples.shared_noise_index}
    return {
        "model": samples.model,
        "checkpoint_sha256": samples.checkpoint_sha256,
        "noise_algorithm": samples.noise_algorithm,
        "seed": samples.seed,
        "first_index": samples.first_index,
        **shared,
    }


def origin_note(samples: Samples) -> PngImagePlugin.PngInfo:
    """A picture's text chunk "infosink": `origin`, `categories` [n] and `style` [n, S] as JSON.

    Sample j is drawn again by the seed, the index first_index + j, categories[j], style[j] and, where it is there,
    shared_noise_index.
    """
    # The shortest digits that float32 needs.
    style = [[float(str(value)) for value in row] for row in samples.style]
    note = PngImagePlugin.PngInfo()
    note.add_itxt(
        "infosink", json.dumps({**origin(samples), "categories": samples.categories.tolist(), "style": style})
    )
    return note


def _write_picture(path: Path, samples: Samples) -> Samples:
    if samples.samples.ndim == 2:
        picture = pictures.scatter(samples.samples, samples.categories)
    else:
        picture = pictures.grid(samples.samples, columns=pictures.near_square(len(samples)))
    picture.save(path, format="PNG", pnginfo=origin_note(samples))
    return samples.without_samples()


def _write_folder(folder: Path, batches: Iterable[Samples]) -> Samples:
    written: list[Samples] = []
    for batch in batches:
        for place in range(len(batch)):
            sample = batch.single(place)
            # A label is the server's word, and no path.
            label = re.sub(r"[^0-9A-Za-z]", "_", str(sample.labels[0]))[:64]
            picture = pictures.image_from_array(sample.samples[0])
            picture.save(
                folder / f"{sample.first_index:06d}-label{label}.png", format="PNG", pnginfo=origin_note(sample)
            )
        written.append(batch.without_samples())
    return join_samples(written)


def _write_arrays(path: Path, batches: Iterable[Samples], count: int) -> Samples:
    written: list[Samples] = []
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("samples.npy", "w", force_zip64=True) as member:
            for batch in batches:
                array = _without_grey_axis(batch.samples)
                if not written:
                    _write_header(member, (count, *array.shape[1:]), array.dtype)
                member.write(array.tobytes())
                written.append(batch.without_samples())
        codes = join_samples(written)
        arrays = {"category": codes.categories, "label": codes.labels, "style": codes.style}
        scalars = {
            name: np.array(value, np.uint64 if isinstance(value, int) else np.str_)
            for name, value in origin(codes).items()
        }
        for name, array in {**arrays, **scalars}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return codes


def _write_header(member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, description)


def _without_grey_axis(array: NDArray[Any]) -> NDArray[Any]:
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
