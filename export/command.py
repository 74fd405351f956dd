"""`infosink-export`: a training run to gen.onnx and q.onnx."""

from __future__ import annotations

import os
import shlex
import signal
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from infosink.training.evaluation.record import Evaluation
    from infosink.training.trained_model import TrainedModel
    from infosink.v1.model_pb2 import LatentSpace

    from .export import ExportedModel
    from .meanings import Meanings
    from .quantisation import Precision
    from .weights import Weights

_WEIGHTS = ("float32", "float16", "int8")
_PRECISIONS = ("float32", "int8")
_FOLDER = _FILE = click.Path(path_type=Path)
_CODES_SHOWN = 30
_LONGEST_MESSAGE = 400
_DISTRIBUTIONS = {
    "torch": "torch",
    "safetensors": "safetensors",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime or onnxruntime-gpu",
}
"""What installs each module of the extra."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=_FOLDER)
@click.option("-o", "--output", type=_FOLDER, metavar="DIRECTORY", help="Where to write the files.  [default: RUN]")
@click.option("--name", help="What a server calls the model.  [default: the name of the data set]")
@click.option("--data-dir", type=_FOLDER, metavar="DIRECTORY", help="Where the data is now, if it has moved.")
@click.option(
    "--licence", default="", show_default="unstated", help="The licence of the weights, as an SPDX identifier."
)
@click.option(
    "--weights",
    type=click.Choice(_WEIGHTS),
    default="float32",
    show_default=True,
    help="How to store large weights. int8 makes files a quarter as large; computing stays float32.",
)
@click.option(
    "--precision",
    type=click.Choice(_PRECISIONS),
    default="float32",
    show_default=True,
    help="What large layers compute in. int8 is some times as fast on a CPU and moves samples a little, by how much is "
    "measured; it makes files smaller too.",
)
@click.option("--card-notes", type=_FILE, metavar="FILE", help="Your own section of the model card, in Markdown.")
@click.version_option(package_name="infosink")
def main(
    run: Path,
    output: Path | None,
    name: str | None,
    data_dir: Path | None,
    licence: str,
    weights: Weights,
    precision: Precision,
    card_notes: Path | None,
) -> None:
    """Make a training RUN into gen.onnx and q.onnx, which a server loads.

    RUN is a directory of infosink-train. The files describe themselves: the meaning of every category is worked out
    here, from the training data; that of every style is what infosink-evaluate found. Both are compared with PyTorch,
    and written only if they agree: to 1e-5, or to four times PyTorch's own float32 error where that is larger. A model
    card inside gen.onnx tells where the model comes from, how good it is and what not to trust it for.

    \b
    infosink-evaluate runs/mnist && infosink-export runs/mnist
    infosink-export runs/mnist -o models --name digits --weights int8
    """  # noqa: D301  # \b is click's sign for lines to keep
    missing = [distribution for module, distribution in _DISTRIBUTIONS.items() if find_spec(module) is None]
    if missing:
        raise click.ClickException(
            f"infosink-export needs {', '.join(missing)}: install with pip install 'infosink[export]'"
        )

    from infosink.training.datasets import DatasetError
    from infosink.training.run_directory import RunDirectory, RunDirectoryError
    from infosink.training.trained_model import load_trained_model

    from .card import read_notes, read_origin
    from .errors import ExportError
    from .export import check_request, export_model

    directory = run if output is None else output
    try:
        with _interrupts_ending_at_once():
            opened = RunDirectory.open(run)
            configuration, _ = opened.read_configuration()
            name = configuration.dataset if name is None else name
            check_request(directory, name=name, licence=licence)
            notes = read_notes(card_notes) if card_notes else ""
            _report("reading the run and naming its categories")
            model = load_trained_model(opened, data_dir)
            meanings, unmeasured = _read_meanings(run, model)
            exported = export_model(
                model,
                directory,
                name=name,
                licence=licence,
                meanings=meanings,
                origin=read_origin(opened, model.iteration),
                notes=notes,
                weights=weights,
                precision=precision,
                report=_report,
            )
    except RunDirectoryError as error:
        # What does not fit is a list of many lines.
        raise click.ClickException(textwrap.shorten(str(error), _LONGEST_MESSAGE)) from error
    except (DatasetError, ExportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for line in _summary(model, exported, meanings.evaluation if meanings else None, unmeasured, licence):
        click.echo(line)


def _read_meanings(run: Path, model: TrainedModel) -> tuple[Meanings | None, str]:
    """What the codes mean and, where no evaluation says it, why not and what to do."""
    from infosink.training.evaluation.record import EvaluationError

    from .meanings import read_meanings

    try:
        return read_meanings(run, model), ""
    except EvaluationError as error:
        return None, _printable(textwrap.shorten(str(error), _LONGEST_MESSAGE))


@contextmanager
def _interrupts_ending_at_once() -> Iterator[None]:
    """Within, Ctrl-C ends the process: an exception would surface inside torch's tracing, which makes another of it."""
    earlier = signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


def _end_at_once(signal_number: int, _frame: FrameType | None) -> None:
    click.echo("\nError: interrupted; nothing was written", err=True)
    os._exit(128 + signal_number)


def _report(stage: str) -> None:
    if stage.startswith("writing"):
        # Both files are in place in a moment, and half of that would help nobody.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo(f"{stage} ...", err=True)


def _summary(
    model: TrainedModel, exported: ExportedModel, evaluation: Evaluation | None, unmeasured: str, licence: str
) -> Iterator[str]:
    from infosink.training.labelling import unreachable_labels

    from .metadata import UNSTATED_LICENCE

    total = model.configuration.iterations
    yield f"Checkpoint of iteration {model.iteration:,} of {total:,}, SHA-256 {model.checkpoint_sha256[:12]}..."
    yield ""
    yield from _category_table(exported.latent_space)
    if missing := unreachable_labels(model.categories, model.dataset):
        shown = ", ".join(_printable(label) for label in missing[:_CODES_SHOWN])
        yield f"No category bears: {shown}{', ...' if len(missing) > _CODES_SHOWN else ''}"
    yield ""
    if unmeasured:
        yield f"Styles keep their plain names, and agreement is unknown: {unmeasured}"
        yield ""
    elif exported.latent_space.styles:
        yield from _style_table(exported.latent_space)
        yield ""
    if evaluation and _is_measured(exported.latent_space):
        yield (
            "Agreement and the meanings of styles were measured by infosink-evaluate on "
            f"{evaluation.samples:,} samples, beside real ones of the {evaluation.split} split."
        )
        yield ""
    yield from exported.parity.lines()
    if exported.rounding:
        yield from exported.rounding.lines()
    yield f"Licence of the weights: {licence or f'{UNSTATED_LICENCE} (state one with --licence)'}"
    for path in (exported.generator_path, exported.encoder_path):
        yield f"{click.format_filename(path)}  {path.stat().st_size / 1e6:.1f} MB"
    yield "A model card is in gen.onnx; infosink models --card shows it once it is served."
    yield f"Next: infosink-serve --model {shlex.quote(click.format_filename(exported.generator_path))}"


def _is_measured(latent_space: LatentSpace) -> bool:
    judged = any(category.HasField("agreement") for category in latent_space.categories)
    return judged or any(style.meaning for style in latent_space.styles)


def _category_table(latent_space: LatentSpace) -> Iterator[str]:
    categories = latent_space.categories
    judged = any(category.HasField("agreement") for category in categories)
    yield f"category  label         share of it  of the data  read back{'  agreement' if judged else ''}"
    for index, category in enumerate(categories[:_CODES_SHOWN]):
        agreement = f"{category.agreement:.1%}" if category.HasField("agreement") else "-"
        yield (
            f"{index:8}  {_printable(category.label)[:12] or '(no sample)':12}  {category.label_share:11.1%}  "
            f"{category.sample_share:11.1%}  {category.recovery:9.1%}{f'  {agreement:>9}' if judged else ''}"
        )
    if (hidden := len(categories) - _CODES_SHOWN) > 0:
        yield f"... and {hidden} more"


def _style_table(latent_space: LatentSpace) -> Iterator[str]:
    yield "   style  name          meaning"
    for index, style in enumerate(latent_space.styles[:_CODES_SHOWN], start=1):
        yield f"{index:8}  {style.name[:12]:12}  {style.meaning or 'none found'}"
    if (hidden := len(latent_space.styles) - _CODES_SHOWN) > 0:
        yield f"... and {hidden} more"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
