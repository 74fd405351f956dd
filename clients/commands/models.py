"""`infosink models`: what the server serves."""

from typing import TYPE_CHECKING, Any

import click

from ..printable import printable
from .options import TEXT, Connection, connection_options
from .report import console, print_json, print_markdown

if TYPE_CHECKING:
    from infosink.v1.model_pb2 import LatentSpace, SampleSpace
    from infosink.v1.sampling_service_pb2 import ServedModel
    from rich.table import Table

_CHECKPOINT_DIGITS = 12


@click.command()
@click.argument("name", type=TEXT, required=False)
@click.option("--card", is_flag=True, help="Print the model's card: what it is, how it was made, what it is not for.")
@connection_options
def models(name: str | None, card: bool, connection: Connection, as_json: bool) -> None:
    """List the server's models, or the categories and styles of the model NAME.

    Of the card, which is Markdown, NAME may be left out: that of the server's first model is meant then.
    """
    with connection.client() as client:
        if name is None and not card:
            listed = client.models()
            if as_json:
                print_json({"models": [_as_json(model) for model in listed]})
            else:
                _print_models(listed)
            return
        served, text = client.model(name or ""), client.card(name or "")
    if as_json:
        print_json({**_as_json(served), "card": text})
    elif not card:
        _print_model(served, text)
    elif text:
        print_markdown(text)
    else:
        raise click.ClickException(
            f"the model {printable(served.model.name)} has no card; files that infosink-export makes now have one"
        )


def _as_json(served: "ServedModel") -> dict[str, Any]:
    from google.protobuf import json_format

    return json_format.MessageToDict(
        served, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _print_models(models: list["ServedModel"]) -> None:
    from rich.table import Table

    from ..draws import distinct_labels

    table = Table("name", "data set", "labels", "styles", "sample", "runs on", "infers codes", "checkpoint", box=None)
    for served in models:
        model = served.model
        styles = [style.meaning or style.name for style in model.latent_space.styles]
        cells = [
            model.name,
            model.data_set,
            " ".join(distinct_labels(model.latent_space)),
            "; ".join(styles) or "none",
            _sample_size(model.sample_space),
            served.execution_provider.removesuffix("ExecutionProvider"),
            "yes" if served.infers_codes else "no",
            model.checkpoint_sha256[:_CHECKPOINT_DIGITS],
        ]
        table.add_row(*map(printable, cells))
    console().print(table)


def _print_model(served: "ServedModel", card: str) -> None:
    from rich.table import Table

    model = served.model
    output = console()
    facts = {
        "name": model.name,
        "data set": model.data_set,
        "sample": _sample_size(model.sample_space),
        "noise dimensions": str(model.latent_space.noise_dimensions),
        "infers codes": "yes" if served.infers_codes else "no",
        "runs on": f"{served.execution_provider}, onnxruntime {served.runtime_version}",
        "checkpoint": model.checkpoint_sha256,
        "licence": model.licence,
        "card": f"infosink models {model.name} --card" if card else "none",
    }
    for name, value in facts.items():
        output.print(f"{name}: {printable(value)}", soft_wrap=True)
    output.print()
    output.print(_category_table(model.latent_space))
    if model.latent_space.styles:
        styles = Table("style", "name", "meaning", box=None)
        for index, style in enumerate(model.latent_space.styles, start=1):
            styles.add_row(str(index), printable(style.name), printable(style.meaning) or "none found")
        output.print()
        output.print(styles)


def _category_table(space: "LatentSpace") -> "Table":
    from rich.table import Table

    judged = any(category.HasField("agreement") for category in space.categories)
    table = Table("category", "label", "label share", "sample share", "recovery", box=None)
    if judged:
        table.add_column("agreement")
    for index, category in enumerate(space.categories):
        shares = (category.label_share, category.sample_share, category.recovery)
        cells = [str(index), printable(category.label), *(f"{share:.3f}" for share in shares)]
        if judged:
            cells.append(f"{category.agreement:.3f}" if category.HasField("agreement") else "-")
        table.add_row(*cells)
    return table


def _sample_size(space: "SampleSpace") -> str:
    if space.HasField("point"):
        return f"point of {space.point.dimensions} dimensions"

    from ..frames import native_size

    height, width = native_size(space.image)
    return f"{height} x {width}, {'grey' if space.image.channels == 1 else f'{space.image.channels} channels'}"
