"""`infosink infer`: category, label and style of people's own images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UnreadableImageError
from ..printable import printable
from .options import Connection, connection_options, model_option
from .report import console, print_json

if TYPE_CHECKING:
    from infosink.v1.model_pb2 import LatentSpace

    from ..results import InferredCodes

_MOST_ROWS = 10
_BAR_LENGTH = 30


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--resize", is_flag=True, help="Fit images of another size into the data set's frame.")
@click.option("--invert", is_flag=True, help="Exchange light and dark: for dark drawings on light paper.")
@model_option
@connection_options
def infer(
    images: tuple[Path, ...], resize: bool, invert: bool, model: str, connection: Connection, as_json: bool
) -> None:
    """Infer category, label and style of IMAGES.

    PNG, JPEG, WebP, GIF, BMP and PPM files are read, made grey or coloured as the model needs.

    infosink infer --resize --invert digit.png
    """
    for path in images:
        if not _is_file(path):
            raise UnreadableImageError(f"{path} is not a file; give an image file")

    import numpy as np

    from ..images import looks_inverted, read_image

    with connection.client() as client:
        description = client.model(model).model
        if not description.sample_space.HasField("image"):
            raise UnreadableImageError(
                f"the model {printable(description.name)} reads points, not images; name another"
            )
        space = description.sample_space.image
        arrays = [read_image(path, space, resize=resize, invert=invert) for path in images]
        codes = client.infer(np.stack(arrays), model=model)
    notes = [
        f"{path}: its border is far from the model's background; {'leave out' if invert else 'try'} --invert"
        for path, array in zip(images, arrays, strict=True)
        if looks_inverted(array, space)
    ]
    if as_json:
        results = [_result(path, codes, row) for row, path in enumerate(images)]
        origin = {"model": codes.model, "checkpoint_sha256": codes.checkpoint_sha256}
        print_json({**origin, "images": results, "notes": notes})
        return
    for row, path in enumerate(images):
        _print(path, codes, row, description.latent_space)
    for note in notes:
        click.echo(f"Note: {note}", err=True)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name too long is no file's.
        return False


def _result(path: Path, codes: "InferredCodes", row: int) -> dict[str, Any]:
    return {
        "image": str(path),
        "category": int(codes.categories[row]),
        "label": str(codes.labels[row]),
        "category_probability": codes.category_probability[row].tolist(),
        "style_mean": codes.style_mean[row].tolist(),
        "style_std": codes.style_std[row].tolist(),
    }


def _print(path: Path, codes: "InferredCodes", row: int, space: "LatentSpace") -> None:
    from rich.table import Table

    output = console()
    probability = codes.category_probability[row]
    category = int(codes.categories[row])
    output.print(
        f"{path}: label {printable(str(codes.labels[row]))} "
        f"(category {category}, probability {probability[category]:.3f})",
        soft_wrap=True,
    )
    block = "#" if output.options.ascii_only else "█"
    table = Table("category", "label", "probability", "", box=None, pad_edge=True)
    for index in probability.argsort(kind="stable")[::-1][:_MOST_ROWS].tolist():
        bar = block * round(_BAR_LENGTH * float(probability[index]))
        table.add_row(str(index), printable(space.categories[index].label), f"{probability[index]:.3f}", bar)
    output.print(table)
    for style, mean, std in zip(space.styles, codes.style_mean[row], codes.style_std[row], strict=True):
        output.print(
            f"  {printable(style.meaning or style.name)}: mean {mean:+.2f}, standard deviation {std:.2f}",
            soft_wrap=True,
        )
