"""The parametrisations of Q and the bounds it is trained on, side by side on the 25 Gaussians.

usage: python benchmarks/parametrisations.py [--iterations 3000] [--seeds 3] [--output docs/parametrisations]

The paper finds the dot product better than the log density of (22). Each minibatch is solved by
Sinkhorn's algorithm. Leaves OUTPUT.json and OUTPUT.md; a run that was interrupted goes on where it
was. About three minutes a run on one core.
"""

from __future__ import annotations

from pathlib import Path

from infosink.training.configuration import preset_configuration
from measured import asked, compare, table
from provenance import provenance

VARIANTS = {
    "dot product, Fenchel (the paper)": {},
    "dot product, Donsker-Varadhan": {"information_bound": "donsker-varadhan"},
    "dot product normalised for each y": {"parametrisation": "normalised"},
    "log density (22)": {"parametrisation": "log-density"},
}


def main() -> None:
    """Trains, measures and writes."""
    arguments = asked(__doc__, Path("docs/parametrisations"))

    origin = provenance("torch", "numpy")
    base = preset_configuration("gaussians", "quick", iterations=arguments.iterations).to_mapping()
    found = compare(VARIANTS, base, range(arguments.seeds), arguments.output, origin)
    arguments.output.with_suffix(".md").write_text(table(found, "Q, and the bound") + "\n")


if __name__ == "__main__":
    main()
