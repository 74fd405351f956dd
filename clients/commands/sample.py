"""`infosink sample`: a few samples of one category or label, in one style."""

import click

from ..destination import Destination, Form
from ..printable import printable
from .options import (
    CATEGORY,
    COUNT,
    STYLE_VALUE,
    TEXT,
    Connection,
    check_picture,
    connection_options,
    first_index_option,
    model_option,
    output_option,
    seed_option,
)
from .report import print_json, progress


@click.command()
@click.option("--label", type=TEXT, help="Draw from the categories that bear this label.  [default: all categories]")
@click.option("--category", type=CATEGORY, metavar="INTEGER", help="Draw from this category; excludes --label.")
@click.option(
    "--style",
    type=STYLE_VALUE,
    multiple=True,
    help="A style value in [-1, 1]; repeat it for each of the model's styles.  [default: drawn]",
)
@click.option("--count", type=COUNT, default=16, show_default=True, metavar="INTEGER", help="How many samples.")
@seed_option
@first_index_option
@click.option("--shared-noise", is_flag=True, help="Give all samples the noise of the first.")
@output_option(
    Form.PICTURE,
    Form.ARRAYS,
    Form.FOLDER,
    description="A .png for one picture of all samples, a .npz for arrays, or a folder (ending in /) of images.",
)
@model_option
@connection_options
def sample(
    label: str | None,
    category: int | None,
    style: tuple[float, ...],
    count: int,
    seed: int | None,
    first_index: int,
    shared_noise: bool,
    output: Destination,
    model: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Draw samples of a label or category, in a style.

    What is left out is drawn at random. The seed that is printed draws the same samples again.

    infosink sample --label 7 --style 0.5 --style -0.3 --seed 1 -o sevens.png

    Arrays are `samples` (images without padding, grey ones without a channel axis), `category`, `label`, `style`,
    and the scalars `seed`, `first_index`, `model`, `checkpoint_sha256` and `noise_algorithm`; with --shared-noise,
    `shared_noise_index` too. Pictures carry the same in a text chunk named infosink.
    """
    if label is not None and category is not None:
        raise click.UsageError(f"give --label {label} or --category {category}, not both")
    if output.form is Form.PICTURE:
        check_picture(count, "write them to a .npz or a folder")
    output.check()

    from .. import outputs

    with connection.client() as client:
        description = client.model(model).model
        outputs.check_form(output.form, count, description.sample_space)
        drawn = client.stream(
            count,
            category=category,
            label=label,
            style=style,
            shared_noise_index=first_index if shared_noise else None,
            seed=seed,
            first_index=first_index,
            model=model,
        )
        with progress(f"samples of {printable(description.name)}", count) as counted:
            samples = outputs.write(output, counted(drawn), count)
    if as_json:
        codes = {"categories": samples.categories.tolist(), "labels": samples.labels.tolist()}
        print_json({"output": str(output.path), "count": count, **outputs.origin(samples), **codes})
        return
    click.echo(f"{count} samples of {printable(samples.model)} in {output.path} (--seed {samples.seed})")
