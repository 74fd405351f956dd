"""The 25 Gaussians at the paper's preset: modes, quality and code-mode purity along training.

usage: python benchmarks/gaussians.py [--iterations 5000] [--lambda 1] [--seed 0] [--output docs/gaussians]

Leaves OUTPUT.json, the measured curve with its provenance, OUTPUT.png, the curve, and
OUTPUT-samples.png, the last samples coloured by category. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.evaluation.modes import mode_coverage
from infosink.training.pictures import point_scatter
from infosink.training.run_directory import RunDirectory
from infosink.training.trainer import Schedule, Trainer
from matplotlib.figure import Figure
from provenance import provenance

SAMPLES = 2_500  # as in PacGAN


def main() -> None:
    """Trains, measures as it goes, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=5_000)
    parser.add_argument("--lambda", dest="lambda_", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="[default: docs/gaussians, with λ where it is not the paper's]")
    arguments = parser.parse_args()
    if arguments.output is None:
        suffix = "" if arguments.lambda_ == 1 else f"-lambda-{arguments.lambda_:g}"
        arguments.output = Path(f"docs/gaussians{suffix}")

    origin = provenance("torch", "numpy")  # of the code that runs, whatever is edited meanwhile
    dataset = open_dataset("gaussians")
    settings = preset_configuration(
        "gaussians", "paper", iterations=arguments.iterations, seed=arguments.seed, lambda_=arguments.lambda_
    )
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(RunDirectory.create(Path(directory)), settings, dataset, torch.device("cpu"))
        reporter = Measurement(trainer)
        trainer.train(Schedule(log_every=100, picture_every=0, checkpoint_every=0), reporter, lambda: False)
    facts = {"settings": json.loads(settings.to_json()), **origin}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{arguments.output}.json").write_text(json.dumps(facts | {"curve": reporter.curve}, indent=1) + "\n")
    plot(reporter.curve, arguments.lambda_, Path(f"{arguments.output}.png"))
    samples, categories = reporter.sample()
    real = dataset.draw(SAMPLES, torch.Generator().manual_seed(1))
    point_scatter(samples, categories, real).save(f"{arguments.output}-samples.png")


class Measurement:
    """Measures the generator at every line of the log."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.curve: list[dict[str, Any]] = []

    def sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples of fixed latents, and their categories."""
        space = self.trainer.settings.latent_space
        latents = space.draw(SAMPLES, torch.Generator().manual_seed(12345))
        with torch.no_grad():
            return self.trainer.networks.generator(latents), space.category_of(latents)

    def iterated(self, iteration: int) -> None:
        """Nothing to do for a single iteration."""

    def logged(self, record: dict[str, Any]) -> None:
        """Adds a point to the curve."""
        dataset = self.trainer.dataset
        coverage = mode_coverage(*self.sample(), dataset.centres, dataset.sigma)
        point = {"iteration": record["iteration"], **coverage._asdict(), "information": record["information"]}
        self.curve.append(point)
        print(json.dumps(point), flush=True)

    def forecast(self, seconds_per_iteration: float) -> None:
        """Prints how long it takes."""
        print(f"{seconds_per_iteration:.3f} s an iteration", flush=True)


def plot(curve: list[dict[str, Any]], lambda_: float, path: Path) -> None:
    """The curve as a picture."""
    iterations = [point["iteration"] for point in curve]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(iterations, [point["code_mode_purity"] for point in curve], label="code-mode purity")
    axes.plot(iterations, [point["modes"] / 25 for point in curve], label="modes found, of 25")
    axes.plot(iterations, [point["high_quality"] for point in curve], label="share of high-quality samples")
    axes.axhline(0.9889, color="grey", linewidth=0.8, linestyle="--", label="high quality of a perfect sampler")
    axes.set(xlabel="generator iterations", ylim=(0, 1.03), title=f"25 Gaussians, Table 1 with λ = {lambda_:g}")
    axes.legend(loc="center right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
