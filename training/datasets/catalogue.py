"""The data sets by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from .dataset import Dataset, DatasetError
from .gaussians import circle_gaussians, grid_gaussians
from .image_folder import open_image_folder
from .images import ImageDataset
from .mnist import open_fashion_mnist, open_mnist

_COMMAND_OPTIONS = {"data_directory": "--data-dir", "sigma": "--sigma", "channels": "--channels",
                    "hold_out": "--hold-out"}  # fmt: skip
_OPENERS: dict[str, tuple[Callable[..., Dataset], set[str]]] = {
    "mnist": (open_mnist, {"data_directory", "hold_out"}),
    "fashion-mnist": (open_fashion_mnist, {"data_directory", "hold_out"}),
    "gaussians": (grid_gaussians, {"sigma"}),
    "eight-gaussians": (circle_gaussians, {"sigma"}),
    "image-folder": (open_image_folder, {"data_directory", "channels", "hold_out"}),
}


def open_dataset(
    name: str,
    *,
    data_directory: Path | None = None,
    sigma: float | None = None,
    channels: Literal[1, 3] | None = None,
    hold_out: int | None = None,
) -> Dataset:
    """Opens a data set by name.

    Args:
        name: "mnist", "fashion-mnist", "gaussians", "eight-gaussians" or "image-folder".
        data_directory: Of "mnist" and "fashion-mnist": a folder with the four IDX files; by default they are fetched
            once and cached. Of "image-folder": the folder, required.
        sigma: Of the Gaussians: each component's standard deviation, positive; by default 0.05 for "gaussians" and
            0.02 for "eight-gaussians".
        channels: Of "image-folder": 1 for grey, 3 for RGB; by default RGB if any image is coloured.
        hold_out: Of images: how many of the training images, evenly spaced, to keep for validation; by default none.

    Returns:
        The data set, on the CPU.

    Raises:
        DatasetError: If the name is unknown, an option does not belong to the data set, or the data cannot be used.
    """
    if name not in _OPENERS:
        raise DatasetError(f"There is no data set {name!r}. Choose one of {', '.join(_OPENERS)}.")
    opener, accepted = _OPENERS[name]
    options: dict[str, Any] = {"data_directory": data_directory, "sigma": sigma, "channels": channels,
                               "hold_out": hold_out}  # fmt: skip
    given = {option: value for option, value in options.items() if value is not None}
    if unknown := given.keys() - accepted:
        refused, taken = (
            ", ".join(sorted(_COMMAND_OPTIONS.get(name, name) for name in names)) for names in (unknown, accepted)
        )
        raise DatasetError(f"The data set {name} takes no {refused}. Leave it out; {name} takes {taken}.")
    held_out = given.pop("hold_out", None)
    dataset = opener(**given)
    return dataset.hold_out(held_out) if held_out is not None and isinstance(dataset, ImageDataset) else dataset
