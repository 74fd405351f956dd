"""The command infosink-train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_HYPERPARAMETERS = "Hyperparameters (defaults: the preset's; the paper's values are Tables 1 and 2)"
_RUN = "The run"
_DATA = "Data"


class _Option(click.Option):
    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class _Command(click.Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the options below their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "heading", "Other"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class _WrongUsage(click.ClickException):
    exit_code = 2


_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _hyperparameter(flag: str, kind: click.ParamType[Any] | type, text: str) -> _Decorator:
    return click.option(flag, cls=_Option, heading=_HYPERPARAMETERS, type=kind, default=None, help=text)


_POSITIVE_INT = click.IntRange(min=1)
_COUNT = click.IntRange(min=0)


@click.command(
    cls=_Command,
    context_settings={"show_default": True, "max_content_width": 110, "help_option_names": ["-h", "--help"]},
    epilog="Stop a run with Ctrl-C: it saves a checkpoint first and says how to go on.",
)
@click.argument("dataset", metavar="DATASET")
@click.option(
    "--preset",
    cls=_Option,
    heading=_RUN,
    type=str,
    default=None,
    help='"paper"; "quick": minutes on a CPU; "best", for images: past the paper, minutes too. '
    "[default: best for mnist, paper for the others]",
)
@click.option(
    "-o",
    "--output",
    cls=_Option,
    heading=_RUN,
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The run directory. [default: runs/DATASET]",
)
@click.option("--resume", cls=_Option, heading=_RUN, is_flag=True, help="Continue the run in the output directory.")
@click.option(
    "--seed",
    cls=_Option,
    heading=_RUN,
    type=click.IntRange(0, 2**63 - 1),
    default=None,
    help="Of everything random. [default: 0]",
)
@click.option(
    "--device",
    cls=_Option,
    heading=_RUN,
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to train.",
)
@click.option("--dry-run", cls=_Option, heading=_RUN, is_flag=True, help="Print the resolved configuration and stop.")
@click.option(
    "--log-every",
    cls=_Option,
    heading=_RUN,
    type=_POSITIVE_INT,
    default=20,
    help="Iterations between lines of metrics.jsonl.",
)
@click.option(
    "--picture-every",
    cls=_Option,
    heading=_RUN,
    type=_COUNT,
    default=200,
    help="Iterations between pictures of samples; 0: only the last.",
)
@click.option(
    "--checkpoint-every",
    cls=_Option,
    heading=_RUN,
    type=_COUNT,
    default=500,
    help="Iterations between checkpoints; 0: only the last.",
)
@click.option(
    "--data-dir",
    cls=_Option,
    heading=_DATA,
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The four IDX files of MNIST or Fashion-MNIST, or the folder of images. [default for the two: fetched once, "
    "then cached]",
)
@click.option(
    "--sigma",
    cls=_Option,
    heading=_DATA,
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Standard deviation of each Gaussian. [default: 0.05; eight-gaussians: 0.02]",
)
@click.option(
    "--channels",
    cls=_Option,
    heading=_DATA,
    type=click.Choice(["1", "3"]),
    default=None,
    help="Grey or RGB, for image-folder. [default: as the images are]",
)
@click.option(
    "--hold-out",
    cls=_Option,
    heading=_DATA,
    type=_POSITIVE_INT,
    default=None,
    help="Training images to keep from training, evenly spaced, to tune on. [default: none]",
)
@_hyperparameter("--iterations", _POSITIVE_INT, "Generator updates. Paper: 24,200 (MNIST), 50,000 (Gaussians).")
@_hyperparameter(
    "--batch-size", click.IntRange(2, 65_536), "B. The paper does not say; 128 for images, 256 for points."
)
@_hyperparameter(
    "--categories", click.IntRange(2, 1000), "Values of the categorical code. Paper: 10 (MNIST), 25 (Gaussians)."
)
@_hyperparameter("--styles", click.IntRange(0, 100), "Continuous codes. Paper: 2 (MNIST), 0 (Gaussians).")
@_hyperparameter("--noise", click.IntRange(0, 10_000), "Noise dimensions. Paper: 88 (MNIST), 103 (Gaussians).")
@_hyperparameter(
    "--ground-cost",
    click.Choice(["l1", "squared-l2"]),
    "c(x, y), averaged over pixels, summed over coordinates. Paper: l1.",
)
@_hyperparameter("--epsilon", float, "ε, the entropic smoothing. Paper: 0.05 (MNIST), 1.5 (Gaussians).")
@_hyperparameter(
    "--lambda", float, "λ, the weight of the information term; 0: the baseline. Paper: 0.05 (MNIST), 1.0 (Gaussians)."
)
@_hyperparameter(
    "--parametrisation",
    click.Choice(["dot-product", "normalised", "log-density"]),
    "Of Q: z1 · D_Q(y) (paper), the same normalised for each y, or log q(z1|y) as in (22).",
)
@_hyperparameter(
    "--information-bound",
    click.Choice(["fenchel", "donsker-varadhan"]),
    "What Q is trained to raise: the bound (20) (paper), or its logarithmic form.",
)
@_hyperparameter(
    "--shared-batch/--no-shared-batch", bool, "Samples of the data term for the self term too, or new ones (paper)."
)
@_hyperparameter("--debias/--no-debias", bool, "With or without the self term −½ W(G♯ζ, G♯ζ).")
@_hyperparameter(
    "--informed-self-term/--no-informed-self-term", bool, "λQ in the plan of the self term too, or not (paper)."
)
@_hyperparameter(
    "--solver", click.Choice(["neural-duals", "sinkhorn"]), "Dual networks (paper), or Sinkhorn on each minibatch."
)
@_hyperparameter("--dual-steps", _POSITIVE_INT, "n_D, updates of the duals for each of G. Paper: 5.")
@_hyperparameter(
    "--dual-update", click.Choice(["sequential", "joint"]), "D2 then D4 (paper), or both in one step, which is faster."
)
@_hyperparameter("--sinkhorn-iterations", _POSITIVE_INT, "Sinkhorn iterations on each minibatch.")
@_hyperparameter("--dual-learning-rate", float, "Of D2, D4 and the trunk. Paper: 0.0002.")
@_hyperparameter("--code-learning-rate", float, "Of Q. Paper: 0.0002.")
@_hyperparameter("--generator-learning-rate", float, "Of G. Paper: 0.0002.")
@_hyperparameter("--adam-beta1", float, "Paper: 0.5 (MNIST), 0 (Gaussians).")
@_hyperparameter("--adam-beta2", float, "Paper: 0.99 (MNIST), 0.9 (Gaussians).")
@_hyperparameter("--code-weight-decay", float, "On Q's head. Paper: 0.001 (MNIST).")
@_hyperparameter("--invariance", float, "α, the weight of Q's invariance to small deformations. Paper: none.")
@_hyperparameter(
    "--category-objective",
    click.Choice(["information", "invariance"]),
    "What Q's category learns from: (31) with the invariance term added, or that term alone.",
)
@_hyperparameter("--over-clusters", _COUNT, "Outputs of an auxiliary invariant head; 0: none.")
@_hyperparameter("--over-balance", float, "Above 1, more of the over-clusters are used.")
@_hyperparameter("--warm-up", _COUNT, "The first iterations, in which Q learns alone by the invariance term.")
@_hyperparameter("--merge-after", _COUNT, "Merge the over-clusters into categories after this iteration; 0: never.")
@_hyperparameter("--merge-samples", click.IntRange(10, 20_000), "Images by which it is decided what belongs together.")
@_hyperparameter("--taught-until", _COUNT, "The last iteration in which Q is taught the merged categories.")
@_hyperparameter(
    "--anchor-labels", _COUNT, "Labelled images of each label that tie categories to labels; 0: no label is looked at."
)
@_hyperparameter("--view-batch-size", click.IntRange(min=2), "Images a step for the invariance term.")
@_hyperparameter("--listening", float, "μ, the weight of reading the category back from deformed samples. Paper: none.")
@_hyperparameter("--style-listening", float, "The weight of reading the styles back from samples. Paper: none.")
@_hyperparameter("--listening-from", _COUNT, "The iteration after which the two act.")
@_hyperparameter("--averaging", float, "Decay of the moving average of G's weights; 0: none, as in the paper.")
@_hyperparameter("--annealing", _COUNT, "The last iterations, over which learning rates fall to 0; 0: none.")
@_hyperparameter(
    "--precision",
    click.Choice(["float32", "bfloat16"]),
    "Of G's and the trunk's passes in training; bfloat16 is faster where the processor has it.",
)
@click.version_option(package_name="infosink")
def train(
    dataset: str,
    preset: str | None,
    output: Path | None,
    resume: bool,
    device: str,
    dry_run: bool,
    log_every: int,
    picture_every: int,
    checkpoint_every: int,
    data_dir: Path | None,
    sigma: float | None,
    channels: str | None,
    hold_out: int | None,
    **hyperparameters: Any,
) -> None:
    """Train the informative Sinkhorn GAN on DATASET.

    DATASET is mnist, fashion-mnist, gaussians, eight-gaussians or image-folder.
    """
    try:
        from . import launch
        from .configuration import ConfigurationError
        from .datasets import DatasetError
        from .run_directory import RunDirectoryError
        from .trainer import Schedule, TrainingDivergedError
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "safetensors"}:
            raise
        message = f"infosink-train needs {error.name}: install it with pip install 'infosink[training]'"
        raise click.ClickException(message) from error
    except KeyboardInterrupt:
        click.echo("Error: interrupted; nothing was started", err=True)
        raise SystemExit(130) from None

    request = launch.Request(
        dataset=dataset,
        output=output or Path("runs") / dataset,
        preset=preset,
        overrides={name: value for name, value in hyperparameters.items() if value is not None},
        data_options={
            "data_directory": data_dir,
            "sigma": sigma,
            "channels": int(channels) if channels else None,
            "hold_out": hold_out,
        },
        device=device,
        schedule=Schedule(log_every, picture_every, checkpoint_every),
        resume=resume,
    )
    try:
        if dry_run:
            click.echo(launch.resolve(request).to_json())
            return
        code = launch.resume(request) if resume else launch.start(request)
    except ConfigurationError as error:
        raise _WrongUsage(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Error: interrupted; what was done since the last checkpoint is not saved", err=True)
        code = 130
    except OSError as error:
        raise click.ClickException(f"cannot go on: {error.strerror or error}") from error
    except (
        DatasetError,
        launch.LaunchError,
        RunDirectoryError,
        TrainingDivergedError,
    ) as error:
        raise click.ClickException(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not launch.is_out_of_memory(error):
            raise
        message = "not enough memory for this run: use a smaller --batch-size"
        raise click.ClickException(message) from error
    raise SystemExit(code)


def main() -> None:
    """The entry point."""
    train(prog_name="infosink-train")
