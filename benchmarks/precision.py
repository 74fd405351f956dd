"""What bfloat16 saves: an iteration of the best preset in it, over one in float32.

usage: python benchmarks/precision.py [--rounds 7] [--iterations 3] [--output docs/precision]

The two take turns, from the same weights, so that a busy machine slows both. Leaves OUTPUT.json with
the median times and the median ratio. About two minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from infosink.training.algorithm import InformativeSinkhorn
from infosink.training.configuration import preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.trainer import make_networks
from provenance import provenance

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Times and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("docs/precision"))
    arguments = parser.parse_args()
    dataset, random = open_dataset("mnist"), torch.Generator().manual_seed(0)
    algorithms, times = {}, {precision: [] for precision in PRECISIONS}
    for precision in PRECISIONS:
        settings = preset_configuration("mnist", "best", precision=precision, merge_after=0)
        algorithm = InformativeSinkhorn(make_networks(settings, dataset.sample_shape), dataset, settings)
        algorithm.iterate(settings.listening_from + 1, random)
        algorithms[precision] = algorithm
    for _ in range(arguments.rounds):
        for precision, algorithm in algorithms.items():
            started = time.perf_counter()
            for iteration in range(arguments.iterations):
                algorithm.iterate(algorithm.settings.listening_from + 2 + iteration, random)
            times[precision].append((time.perf_counter() - started) / arguments.iterations)
    facts = provenance("torch") | {
        "threads": torch.get_num_threads(),
        "seconds": {precision: statistics.median(each) for precision, each in times.items()},
        "ratio": statistics.median(a / b for a, b in zip(times["bfloat16"], times["float32"], strict=True)),
    }
    arguments.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
