"""What the information term costs: an iteration with it over one without.

usage: python benchmarks/overhead.py [--rounds 5] [--iterations 4] [--output docs/overhead]

Three variants take turns, so that a busy machine slows all of them: λ as in the preset; λ = 0, where
Q still learns as an observer; and no Q at all, its head replaced by a constant, and with the Sinkhorn
solver the trunk too, which nothing but Q needs there. Leaves OUTPUT.json
with the median time of each and the ratios. About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from infosink.training.algorithm import InformativeSinkhorn
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.trainer import make_networks
from provenance import provenance
from torch import Tensor, nn


class Constant(nn.Module):
    """In place of a network: zeros, for the price of making them."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.zeros = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Zeros, (batch, outputs)."""
        return self.zeros.expand(len(inputs), -1)


def variants(name: str, solver: str) -> dict[str, InformativeSinkhorn]:
    """An algorithm for each variant, from the same weights."""
    dataset = open_dataset(name)
    made = {}
    for variant, overrides in (("informative", {}), ("λ = 0", {"lambda_": 0.0}), ("no Q", {"lambda_": 0.0})):
        settings = preset_configuration(name, "paper", solver=solver, **overrides)
        networks = make_networks(settings, dataset.sample_shape)
        if variant == "no Q":
            networks.code_head = Constant(settings.latent_space.informative)
            if solver == "sinkhorn":
                networks.trunk = Constant(1)
        made[variant] = InformativeSinkhorn(networks, dataset, settings)
    return made


def main() -> None:
    """Times and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("docs/overhead"))
    arguments = parser.parse_args()
    facts: dict[str, Any] = provenance("torch") | {"threads": torch.get_num_threads(), "seconds": {}, "ratios": {}}
    for name in ("mnist", "gaussians"):
        for solver in ("neural-duals", "sinkhorn"):
            algorithms = variants(name, solver)
            random = torch.Generator().manual_seed(0)
            for algorithm in algorithms.values():
                algorithm.iterate(1, random)
            times: dict[str, list[float]] = {variant: [] for variant in algorithms}
            for _ in range(arguments.rounds):
                for variant, algorithm in algorithms.items():
                    started = time.perf_counter()
                    for iteration in range(arguments.iterations):
                        algorithm.iterate(iteration + 2, random)
                    times[variant].append((time.perf_counter() - started) / arguments.iterations)
            medians = {variant: statistics.median(each) for variant, each in times.items()}
            key = f"{name}, {solver}"
            facts["seconds"][key] = medians
            facts["ratios"][key] = {
                f"informative over {other}": statistics.median(
                    a / b for a, b in zip(times["informative"], times[other], strict=True)
                )
                for other in ("λ = 0", "no Q")
            }
            print(key, json.dumps(facts["ratios"][key], ensure_ascii=False), flush=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
