"""What is asked for, and which runs it is drawn from: all of it is checked here, before any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configuration import POINT_DATASETS, Configuration, preset_configuration
from ..datasets import Dataset, DatasetError, open_dataset
from ..run_directory import RunDirectory, RunDirectoryError
from ..trained_model import recorded_differences, reopen_dataset
from . import smoothing
from .runs import FigureError, FigureRun, require_usable

FIGURES = (1, 2, 3, 4)
# Whose finished runs a figure shows, baseline and informative, by data.
RUNS_OF: dict[int, tuple[str, ...]] = {1: (), 2: (), 3: ("gaussians", "mnist"), 4: ("mnist",)}


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        figures: their numbers.
        output: the directory of the figures.
        quick: whether to draw small versions, training small runs where none are given.
        seed: of everything random.
        runs: finished runs: "gaussians", "gaussians-baseline", "mnist" and "mnist-baseline"; those given.
        data_directory: MNIST's files; None to fetch them once.
        device: "auto", "cpu" or "cuda", to train on.
    """

    figures: tuple[int, ...]
    output: Path
    quick: bool
    seed: int
    runs: dict[str, Path]
    data_directory: Path | None
    device: str

    def name(self, what: str) -> str:
        """The name of a file or directory of this version, quick or not."""
        return f"quick-{what}" if self.quick else what


@dataclass(frozen=True)
class Selection:
    """The runs that the figures asked for are drawn from, each fit for it.

    Attributes:
        panels: of figure 1, to be trained; empty where it is not asked for.
        pairs: baseline and informative, by data, for figures 3 and 4.
    """

    panels: list[FigureRun] = field(default_factory=list)
    pairs: dict[str, tuple[FigureRun, FigureRun]] = field(default_factory=dict)


def select(request: Request) -> Selection:
    """Finds the runs and opens their data, which is all that can be refused.

    Raises:
        FigureError: a run is missing, or is not what its figure needs, or a directory holds another.
        RunDirectoryError: a run is damaged, or a directory cannot be written.
        DatasetError: the data cannot be had.
    """
    names = _needed(request)
    given = {name: _fitting_settings(name, request) for name in names if name in request.runs}
    for name in given:
        RunDirectory.open(request.runs[name]).read_checkpoint()
    own = {name: quick_settings(name, request.seed) for name in names if name not in request.runs}
    fresh = {
        name: open_dataset(name, data_directory=request.data_directory if name == "mnist" else None)
        for name in {*(settings.dataset for settings in own.values()), *(("mnist",) if 1 in request.figures else ())}
    }
    panels = []
    if 1 in request.figures:
        panels = smoothing.figure_runs(
            request.quick,
            request.seed,
            fresh["mnist"],
            request.output / "runs",
            request.name("figure-1"),
            request.data_directory,
        )
    runs: dict[str, FigureRun] = {}
    opened = list(fresh.values())
    for name in names:
        if name in given:
            runs[name] = _given_run(name, given[name], request, opened)
            opened.append(runs[name].dataset)
        else:
            directory = request.data_directory if own[name].dataset == "mnist" else None
            path = request.output / "runs" / request.name(name)
            runs[name] = FigureRun(path, own[name], fresh[own[name].dataset], directory)
    for run in (*panels, *runs.values()):
        if not run.given:
            require_usable(run)
    pairs = {name: (runs[f"{name}-baseline"], runs[name]) for name in runs if not name.endswith("-baseline")}
    for name, pair in pairs.items():
        _require_same_data(name, *pair)
    return Selection(panels, pairs)


def quick_settings(run: str, seed: int) -> Configuration:
    """The settings of a run that is trained on the spot, with --quick.

    The Gaussians are the eight on a circle, which take seconds. A baseline is without λ and without all
    that is past the paper: a listening generator would be told its category by other means.
    """
    baseline: dict[str, Any] = {"lambda": 0.0} if run.endswith("-baseline") else {}
    if run.startswith("gaussians"):
        fast = dict(batch_size=128, iterations=400, dual_learning_rate=1e-3, code_learning_rate=1e-3,
                    generator_learning_rate=1e-3, seed=seed)  # fmt: skip
        return preset_configuration("eight-gaussians", "quick", **({"lambda": 1.5} | fast | baseline))
    small = dict(batch_size=32, view_batch_size=96, iterations=120, listening_from=40, averaging=0.9, seed=seed)
    if baseline:
        baseline |= dict(invariance=0.0, over_clusters=0, listening=0.0)
    return preset_configuration("mnist", "quick", **(small | baseline))


def _needed(request: Request) -> list[str]:
    """The names of the runs that are shown, each either given or to be trained."""
    data = sorted({data for number in request.figures for data in RUNS_OF[number]})
    names = [f"{each}{suffix}" for each in data for suffix in ("-baseline", "")]
    missing = [name for name in names if name not in request.runs]
    if missing and not request.quick:
        commands = "\n".join(
            f"    infosink-train {name.removesuffix('-baseline')} --preset paper"
            f"{' --lambda 0' if 'baseline' in name else ''} --output runs/{name}"
            for name in missing
        )
        options = " ".join(f"--{name} runs/{name}" for name in missing)
        drawn = [str(number) for number in sorted(set(request.figures)) if RUNS_OF[number]]
        which = f"figure {drawn[0]} is" if len(drawn) == 1 else f"figures {' and '.join(drawn)} are"
        raise FigureError(
            f"{which} drawn from finished runs. Train them:\n{commands}\nand name them: {options}. "
            "Or use --quick for small ones trained on the spot."
        )
    return names


def _fitting_settings(name: str, request: Request) -> Configuration:
    """The settings of a given run that is what its option says and its figures need."""
    path = request.runs[name]
    settings = RunDirectory.open(path).read_configuration()[0]
    data, option = name.removesuffix("-baseline"), f"--{name} {path}"
    accepted = POINT_DATASETS if data == "gaussians" else ("mnist",)
    if settings.dataset not in accepted:
        raise FigureError(f"{option}: it is a run on {settings.dataset}; name one on {' or '.join(accepted)}")
    if name.endswith("-baseline") and (settings.lambda_ or settings.listening):
        raise FigureError(
            f"{option}: it is no baseline, with λ {settings.lambda_:g} and listening {settings.listening:g}; "
            "name a run trained with --lambda 0 and --listening 0"
        )
    if not name.endswith("-baseline") and not settings.lambda_:
        raise FigureError(f"{option}: it is a baseline, its λ is 0; name it with --{name}-baseline")
    if data == "mnist" and 4 in request.figures and (settings.styles < 2 or settings.noise < 1):
        raise FigureError(
            f"{option}: it has {settings.styles} continuous codes and {settings.noise} noise variables, and figure 4 "
            "moves 2 and 1; name a run with as many, or leave out figure 4"
        )
    return settings


def _given_run(name: str, settings: Configuration, request: Request, opened: list[Dataset]) -> FigureRun:
    """A given run with its data, which may be open already."""
    path = request.runs[name]
    directory = request.data_directory if settings.dataset == "mnist" else None
    data = RunDirectory.open(path).read_configuration()[1]
    try:
        dataset = next((each for each in opened if not recorded_differences(data, each)), None)
        dataset = dataset or reopen_dataset(data, settings.dataset, directory)
    except (DatasetError, RunDirectoryError) as error:
        raise FigureError(f"--{name} {path}: {error}") from error
    return FigureRun(path, settings, dataset, directory, given=True)


def _require_same_data(name: str, baseline: FigureRun, informative: FigureRun) -> None:
    if baseline.dataset.describe() != informative.dataset.describe():
        raise FigureError(
            f"{informative.path} and {baseline.path} are runs on different data, so that the one is no baseline of "
            f"the other: name two on the same with --{name} and --{name}-baseline"
        )
