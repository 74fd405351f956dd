"""The command infosink-figures."""

from __future__ import annotations

from pathlib import Path

import click

_RUN = click.Path(path_type=Path, file_okay=False)


@click.command(
    context_settings={"show_default": True, "max_content_width": 110, "help_option_names": ["-h", "--help"]},
    epilog="Stop with Ctrl-C: figures drawn are whole, and the same command continues the runs it was training.",
)
@click.argument("figures", metavar="[1] [2] [3] [4]", nargs=-1, type=click.IntRange(1, 4))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("figures"),
    help="The directory of the figures, and of the runs trained for them.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Small versions, in minutes; runs that are not given are trained.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of everything random.")
@click.option("--gaussians", type=_RUN, help="A finished run on the Gaussians. [figure 3]", show_default=False)
@click.option("--gaussians-baseline", type=_RUN, help="The same with --lambda 0. [figure 3]", show_default=False)
@click.option("--mnist", type=_RUN, help="A finished run on MNIST. [figures 3 and 4]", show_default=False)
@click.option("--mnist-baseline", type=_RUN, help="The same with --lambda 0. [figures 3 and 4]", show_default=False)
@click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), default=None, show_default=False,
    help="MNIST's four IDX files. [default: fetched once, then cached]",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to train what is trained."
)
@click.version_option(package_name="infosink")
def figures(
    figures: tuple[int, ...],
    output: Path,
    quick: bool,
    seed: int,
    gaussians: Path | None,
    gaussians_baseline: Path | None,
    mnist: Path | None,
    mnist_baseline: Path | None,
    data_dir: Path | None,
    device: str,
) -> None:
    """Reproduce the paper's figures, all four or those named by number.

    \b
    1: the smoothed loss collapses on medians and means, the Sinkhorn loss does not; trains eight runs
    2: the transport plan with and without the information term
    3: samples by category, baseline beside informative
    4: traversals of two continuous codes and a noise variable, baseline beside informative

    Each is written as figure-N.png, with the numbers behind it in figure-N.json; a small version as quick-figure-N.
    """  # noqa: D301  # \b is click's sign for lines to keep
    given = {
        "gaussians": gaussians,
        "gaussians-baseline": gaussians_baseline,
        "mnist": mnist,
        "mnist-baseline": mnist_baseline,
    }
    runs = {name: path for name, path in given.items() if path is not None}
    try:
        _reproduce(figures, output, runs, data_dir, device, quick=quick, seed=seed)
    except KeyboardInterrupt:
        click.echo("Error: interrupted; figures drawn are whole, and the same command goes on from here", err=True)
        raise SystemExit(130) from None


def _reproduce(
    figures: tuple[int, ...],
    output: Path,
    runs: dict[str, Path],
    data_directory: Path | None,
    device: str,
    *,
    quick: bool,
    seed: int,
) -> None:
    try:
        from ..datasets import DatasetError
        from ..evaluation.record import EvaluationError
        from ..launch import LaunchError, is_out_of_memory
        from ..run_directory import RunDirectoryError
        from ..trainer import TrainingDivergedError
        from .reproduce import reproduce
        from .runs import FigureError
        from .selection import FIGURES, Request
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"torch", "safetensors", "matplotlib"}:
            raise
        message = f"infosink-figures needs {missing}: install it with pip install 'infosink[evaluation]'"
        raise click.ClickException(message) from error

    request = Request(
        figures=figures or FIGURES,
        output=output,
        quick=quick,
        seed=seed,
        runs=runs,
        data_directory=data_directory,
        device=device,
    )
    try:
        reproduce(request)
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error.strerror or error}") from error
    except (
        DatasetError,
        EvaluationError,
        FigureError,
        LaunchError,
        RunDirectoryError,
        TrainingDivergedError,
    ) as error:
        raise click.ClickException(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise click.ClickException("not enough memory: use --quick, or --device cpu") from error


def main() -> None:
    """The entry point."""
    figures(prog_name="infosink-figures")
