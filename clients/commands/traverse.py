"""`infosink traverse`: what one style changes, label by label."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ..destination import Destination, Form
from ..errors import UnwritableOutputError
from ..printable import printable
from .options import (
    CATEGORY,
    STYLE_VALUE,
    TEXT,
    Connection,
    check_picture,
    connection_options,
    model_option,
    output_option,
    seed_option,
)
from .report import print_json

if TYPE_CHECKING:
    from infosink.v1.model_pb2 import Model

    from ..draws import Code

_LONGEST_TITLE = 40


@click.command()
@click.option("--label", type=TEXT, multiple=True, help="A row of the picture; may be repeated.  [default: all labels]")
@click.option(
    "--category",
    type=CATEGORY,
    multiple=True,
    metavar="INTEGER",
    help="A row of the picture; may be repeated; excludes --label.",
)
@click.option(
    "--style-index",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="INTEGER",
    help="The style that changes, counted from 1 as `infosink models NAME` lists them.",
)
@click.option(
    "--steps",
    type=click.IntRange(2, 101),
    default=9,
    show_default=True,
    metavar="INTEGER",
    help="Columns, from -1 to 1.",
)
@click.option(
    "--style",
    type=STYLE_VALUE,
    multiple=True,
    help="The value of each style, of which the one that changes is passed over.  [default: 0]",
)
@seed_option
@output_option(Form.PICTURE, description="The picture, a .png file.")
@model_option
@connection_options
def traverse(
    label: tuple[str, ...],
    category: tuple[int, ...],
    style_index: int,
    steps: int,
    style: tuple[float, ...],
    seed: int | None,
    output: Destination,
    model: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Draw a picture of what one style changes.

    One row a label, one column a value of the style from -1 to 1; the other styles stay at 0, and all images take the
    same noise. Where several categories bear a label, its row shows the one with the most training samples.

    infosink traverse --style-index 2 --steps 9 --seed 1 -o traverse.png
    """
    if label and category:
        raise click.UsageError("give rows by --label or by --category, not both")
    output.check()

    import numpy as np

    from .. import outputs

    with connection.client() as client:
        description = client.model(model).model
        space = description.latent_space
        if not description.sample_space.HasField("image"):
            raise UnwritableOutputError(
                f"the model {printable(description.name)} generates points; traverse draws images"
            )
        _check_styles(description.name, len(space.styles), style_index, len(style))
        rows = _rows(description, label, category)
        check_picture(len(rows) * steps, "take fewer rows or --steps")
        values = np.linspace(-1, 1, steps).tolist()
        outputs.check_form(output.form, len(rows) * steps, description.sample_space, columns=steps)
        fixed = list(style) or [0.0] * len(space.styles)
        codes = [
            replace(row, style=[*fixed[: style_index - 1], value, *fixed[style_index:]])
            for row in rows
            for value in values
        ]
        samples = client.sample(len(codes), codes=codes, shared_noise_index=0, seed=seed, model=model)
    row_titles = [printable(label)[:_LONGEST_TITLE] for label in samples.labels[::steps].tolist()]
    column_titles = [f"{value:+.2f}" for value in values]
    outputs.write_grid(output, samples, columns=steps, row_titles=row_titles, column_titles=column_titles)
    if as_json:
        rows_drawn = {"categories": samples.categories[::steps].tolist(), "labels": samples.labels[::steps].tolist()}
        columns = {"style_index": style_index, "values": values}
        print_json(
            {"output": str(output.path), "count": len(samples), **outputs.origin(samples), **rows_drawn, **columns}
        )
        return
    name = printable(space.styles[style_index - 1].name)
    click.echo(f"{len(rows)} rows of {name} from -1 to 1 in {output.path} (--seed {samples.seed})")


def _check_styles(model: str, styles: int, style_index: int, given: int) -> None:
    if style_index > styles:
        raise click.UsageError(f"--style-index {style_index}: the model {printable(model)} has {styles} styles")
    if given not in (0, styles):
        raise click.UsageError(
            f"--style is given {given} times; the model {printable(model)} has {styles} styles: give all or none"
        )


def _rows(model: "Model", labels: tuple[str, ...], categories: tuple[int, ...]) -> list["Code"]:
    from ..draws import Code, distinct_labels

    if categories:
        return [Code(category=category) for category in categories]
    described = model.latent_space.categories
    labels = labels or tuple(distinct_labels(model.latent_space))
    if not labels:
        raise click.UsageError(f"no category of the model {printable(model.name)} bears a label; take --category")
    rows = []
    for label in labels:
        bearers = [index for index, category in enumerate(described) if category.label == label]
        if bearers:
            rows.append(Code(category=max(bearers, key=lambda index: described[index].sample_share)))
        else:
            # The server's refusal names the labels that exist.
            rows.append(Code(label=label))
    return rows
