"""Trains the 25 Gaussians under given settings and measures the end, for the benchmarks that compare settings."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from infosink.training.code_distribution import make_code_distribution
from infosink.training.configuration import Configuration
from infosink.training.datasets.gaussians import grid_gaussians
from infosink.training.evaluation.codes import code_reading
from infosink.training.evaluation.modes import mode_coverage
from infosink.training.run_directory import RunDirectory
from infosink.training.trained_model import load_trained_model
from infosink.training.trainer import Schedule, Trainer

SAMPLES = 2_500  # as in PacGAN
COLUMNS = {
    "modes": "modes of 25",
    "high_quality": "high-quality share",
    "code_mode_purity": "code-mode purity",
    "recovery": "code recovery",
    "code_information": "code information (nats, perfect 3.22)",
    "spread": "spread (generated over real)",
}


def asked(description: str | None, output: Path) -> argparse.Namespace:
    """The iterations, seeds and output (without suffix) that the command line asks for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=output)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    return arguments


class Silent:
    """Reports nothing."""

    def iterated(self, iteration: int) -> None:
        """See Reporter."""

    def logged(self, record: dict[str, Any]) -> None:
        """See Reporter."""

    def forecast(self, seconds_per_iteration: float) -> None:
        """See Reporter."""


def measured_run(settings: Configuration) -> dict[str, float]:
    """Trains to the end and measures samples by the protocol of PacGAN, and the code in them."""
    dataset = grid_gaussians()
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create(Path(directory))
        run.write_configuration(settings, {"options": {"data_directory": None}, "facts": dataset.describe()})
        trainer = Trainer(run, settings, dataset, torch.device("cpu"))
        trainer.train(Schedule(log_every=100, picture_every=0, checkpoint_every=0), Silent(), lambda: False)
        model = load_trained_model(run, dataset=dataset)
        last = run.read_metrics()[-1]
    space, random = settings.latent_space, torch.Generator().manual_seed(12345)
    latents = space.draw(SAMPLES, random)
    with torch.no_grad():
        samples = model.networks.sampling_generator(latents)
    coverage = mode_coverage(samples, space.category_of(latents), dataset.centres, dataset.sigma)
    reading = code_reading(model.networks, make_code_distribution(settings), space, SAMPLES, random)
    return {
        **coverage._asdict(),
        "recovery": reading.recovery,
        "code_information": reading.information,
        "plan_information": last["information"],
        "spread": last["spread"],
    }


def compare(
    variants: dict[str, dict[str, Any]],
    base: dict[str, Any],
    seeds: Iterable[int],
    output: Path,
    origin: dict[str, Any],
) -> dict[str, list[dict[str, float]]]:
    """Every variant at every seed, kept in OUTPUT.json as they are done; those found there are not done again.

    The file may hold variants and seeds beyond those asked for; each run keeps the commit it was made at.

    Args:
        variants: settings by the variant's name.
        base: settings that all share, the data set's name and preset among them.
        seeds: of the runs.
        output: without suffix.
        origin: the provenance of the runs.
    """
    path = output.with_suffix(".json")
    done = json.loads(path.read_text()) if path.exists() else {"settings": base, "variants": variants, **origin}
    known = done["variants"] | variants
    if done["settings"] != base or any(known[name] != settings for name, settings in done["variants"].items()):
        raise SystemExit(f"{path} was made with other settings: name another --output")
    done["variants"] = known
    runs = done.setdefault("runs", {})
    seeds = list(seeds)
    for seed in seeds:
        for name, overrides in variants.items():
            if f"{name}, seed {seed}" in runs:
                continue
            found = measured_run(Configuration.from_mapping(base | overrides | {"seed": seed}))
            runs[f"{name}, seed {seed}"] = found | {"commit": origin["commit"]}
            print(f"{name}, seed {seed}: {json.dumps(found)}", flush=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(done, indent=1) + "\n")
            partial.replace(path)
    return {name: [runs[f"{name}, seed {seed}"] for seed in seeds] for name in variants}


def table(found: dict[str, list[dict[str, float]]], first: str) -> str:
    """A Markdown table of means and ranges over seeds."""
    lines = [f"| {first} | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name, runs in found.items():
        cells = []
        for column in COLUMNS:
            values = [run[column] for run in runs]
            digits = 1 if column == "modes" else 3
            low, mean, high = (f"{value:.{digits}f}" for value in (min(values), statistics.mean(values), max(values)))
            cells.append(mean if low == high else f"{mean} ({low} to {high})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
