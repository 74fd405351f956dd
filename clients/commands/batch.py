"""`infosink batch`: many samples, every label or category in turn."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ..destination import Destination, Form
from .options import (
    COUNT,
    Connection,
    connection_options,
    first_index_option,
    model_option,
    output_option,
    seed_option,
)
from .report import print_json, printable, progress

if TYPE_CHECKING:
    from infosink.v1.model_pb2 import LatentSpace

    from ..draws import Code
    from ..results import Samples


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
        drawn = client.stream(
            count, codes=_codes(description.latent_space, by), seed=seed, first_index=first_index, model=model
        )
        with progress(f"samples of {printable(description.name)}", count) as advance:
            tally = _Tally(advance)
            outputs.write(output, tally.over(drawn), count)
    if as_json:
        labels = dict(sorted(tally.labels.items()))
        print_json({"output": str(output.path), "count": count, **tally.origin, "labels": labels})
        return
    click.echo(f"{count} samples of {printable(description.name)} in {output.path} (--seed {tally.origin['seed']})")


@dataclass
class _Tally:
    """What has gone by: where the samples come from, and how many bear each label."""

    advance: Callable[[int], None]
    origin: dict[str, Any] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)

    def over(self, batches: Iterable["Samples"]) -> Iterator["Samples"]:
        from .. import outputs

        for samples in batches:
            yield samples
            self.origin = self.origin or outputs.origin(samples)
            self.labels.update(samples.labels.tolist())
            self.advance(len(samples))


def _codes(space: "LatentSpace", by: str) -> list["Code"]:
    from ..draws import Code, distinct_labels

    if by == "category":
        return [Code(category=index) for index in range(len(space.categories))]
    return [Code(label=label) for label in distinct_labels(space)]
