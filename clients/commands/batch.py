"""`infosink batch`: many samples, every label or category in turn."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from ..destination import Destination, Form
from ..printable import printable
from .options import (
    COUNT,
    Connection,
    connection_options,
    first_index_option,
    model_option,
    output_option,
    seed_option,
)
from .report import print_json, progress

if TYPE_CHECKING:
    from infosink.v1.model_pb2 import Model

    from ..draws import Code


@click.command()
@click.option("--count", type=COUNT, default=10_000, show_default=True, metavar="INTEGER", help="How many samples.")
@click.option(
    "--by",
    type=click.Choice(["label", "category"]),
    default="label",
    show_default=True,
    help="What to take in turn: each label once, or each category, of which several may bear one label.",
)
@seed_option
@first_index_option
@output_option(
    Form.ARRAYS, Form.FOLDER, description="A .npz for arrays, or a new or empty folder (ending in /) of images."
)
@model_option
@connection_options
def batch(
    count: int,
    by: str,
    seed: int | None,
    first_index: int,
    output: Destination,
    model: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Draw many samples, every label in turn.

    Nothing is left behind if it is interrupted.

    infosink batch --count 10000 -o digits.npz
    """
    output.check()

    from .. import outputs

    with connection.client() as client:
        description = client.model(model).model
        outputs.check_form(output.form, count, description.sample_space)
        codes = _codes(description, by)
        drawn = client.stream(count, codes=codes, seed=seed, first_index=first_index, model=model)
        with progress(f"samples of {printable(description.name)}", count) as counted:
            samples = outputs.write(output, counted(drawn), count)
    if as_json:
        labels = dict(sorted(Counter(samples.labels.tolist()).items()))
        print_json({"output": str(output.path), "count": count, **outputs.origin(samples), "labels": labels})
        return
    click.echo(f"{count} samples of {printable(samples.model)} in {output.path} (--seed {samples.seed})")


def _codes(model: "Model", by: str) -> list["Code"]:
    from ..draws import Code, distinct_labels

    if by == "category":
        return [Code(category=index) for index in range(len(model.latent_space.categories))]
    labels = distinct_labels(model.latent_space)
    if not labels:
        raise click.UsageError(f"no category of the model {printable(model.name)} bears a label; take --by category")
    return [Code(label=label) for label in labels]
