"""The command infosink-evaluate."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from .launch import Request

_FOLDER = click.Path(path_type=Path, file_okay=False)
_DISTRIBUTIONS = {
    "torch": "torch",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
}
"""What installs each module of the extra."""


@click.command(
    context_settings={"show_default": True, "max_content_width": 110, "help_option_names": ["-h", "--help"]},
    epilog="Ctrl-C stops the evaluation of a run and leaves its earlier one as it was.",
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=_FOLDER)
@click.option("--seeds", is_flag=True, help="Show mean, deviation and extremes over several RUNs.")
@click.option(
    "--split", type=click.Choice(["test", "validation"]), default="test", help="Whose real samples to measure against."
)
@click.option("--baseline", type=_FOLDER, metavar="RUN", help="Another run on the same data to show beside this one.")
@click.option("--samples", type=click.IntRange(100, 100_000), default=10_000, help="How many to generate.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of everything random in the evaluation.")
@click.option("--data-dir", type=_FOLDER, metavar="DIRECTORY", help="Where the data is now, if it has moved.")
@click.option(
    "--inception-weights",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="torch-fidelity's Inception v3, for the Fréchet distance in its features.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.md",
    help="With --seeds: where to write the table; the numbers go beside it as .json.",
)
@click.version_option(package_name="infosink")
def evaluate(
    runs: tuple[Path, ...],
    seeds: bool,
    split: Literal["test", "validation"],
    baseline: Path | None,
    samples: int,
    seed: int,
    data_dir: Path | None,
    inception_weights: Path | None,
    output: Path | None,
) -> None:
    """Measure how good the model of a training RUN is.

    RUN is a directory of infosink-train. Writes evaluation.json, evaluation.md and evaluation/*.png into it.

    With --seeds, RUNs that differ in their seed only are summed up, those without an up-to-date evaluation being
    evaluated first; so is a --baseline. An evaluation that was made with other options is replaced only in a RUN that
    is named alone.

    \b
    infosink-evaluate runs/mnist --baseline runs/mnist-without-information
    infosink-evaluate --seeds runs/mnist-* --output seeds.md
    """  # noqa: D301  # \b is click's sign for lines to keep
    if not seeds and len(runs) > 1:
        raise click.UsageError(f"{len(runs)} runs were given: name one, or sum several up with --seeds")
    if not seeds and output is not None:
        raise click.UsageError("--output belongs to --seeds: the evaluation of one run lies in its directory")
    if seeds and baseline is not None:
        raise click.UsageError("--baseline is for one run: leave it out, or leave out --seeds")
    if output is not None and output.suffix != ".md":
        raise click.UsageError(f"--output {output} must end in .md")
    missing = [distribution for module, distribution in _DISTRIBUTIONS.items() if not _installed(module)]
    if missing:
        raise click.ClickException(
            f"infosink-evaluate needs {', '.join(missing)}: install with pip install 'infosink[evaluation]'"
        )

    try:
        _run(list(runs), seeds, baseline, output, data_dir, (split, samples, seed, inception_weights))
    except KeyboardInterrupt:
        click.echo("\nError: interrupted; evaluations that were finished stay, every other run is as it was", err=True)
        raise SystemExit(130) from None


def _run(
    runs: list[Path],
    seeds: bool,
    baseline: Path | None,
    output: Path | None,
    data_directory: Path | None,
    options: tuple[Literal["test", "validation"], int, int, Path | None],
) -> None:
    from ..datasets import DatasetError
    from ..run_directory import RunDirectoryError
    from .classifier import ClassifierError
    from .inception import InceptionError
    from .launch import Request
    from .record import EvaluationError
    from .subject import Options

    request = Request(Options(*options), data_directory)
    try:
        if seeds:
            _sum_up(runs, request, output)
        else:
            _evaluate(runs[0], request, baseline)
    except OSError as error:
        raise click.ClickException(f"cannot go on: {error.strerror or error}") from error
    except (ClassifierError, DatasetError, EvaluationError, InceptionError, RunDirectoryError) as error:
        raise click.ClickException(str(error)) from error


def _evaluate(run: Path, request: Request, baseline: Path | None) -> None:
    from .launch import evaluate_run
    from .progress import StageReporter, print_headline

    with StageReporter() as progress:
        evaluation = evaluate_run(run, request, progress, baseline)
    print_headline(evaluation)
    report, numbers = (click.format_filename(run / f"evaluation.{suffix}") for suffix in ("md", "json"))
    click.echo(f"The report is {report}, the numbers are {numbers}.")


def _sum_up(runs: list[Path], request: Request, output: Path | None) -> None:
    from .launch import evaluate_seeds
    from .progress import StageReporter, print_spreads
    from .record import write_files
    from .seeds import markdown, over_seeds, require_replaceable, to_json

    if output is not None:
        require_replaceable(output)
    with StageReporter() as progress:
        evaluations = evaluate_seeds(runs, request, progress)
    print_spreads(over_seeds(evaluations))
    if output is not None:
        numbers, names = output.with_suffix(".json"), [run.resolve().name for run in runs]
        files = {numbers.name: to_json(names, evaluations), output.name: markdown(names, evaluations)}
        write_files(output.parent, {name: text.encode() for name, text in files.items()})
        click.echo(f"The table is {click.format_filename(output)}, the numbers are {click.format_filename(numbers)}.")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # it is being kept out of reach
        return False


def main() -> None:
    """The entry point."""
    evaluate(prog_name="infosink-evaluate")
