"""How λ should stand to ε: the paper calls λ equal to or slightly less than ε "a good balanced choice".

usage: python benchmarks/balance.py [--iterations 3000] [--seeds 3] [--output docs/balance]

Trains the 25 Gaussians at Table 1's ε with λ / ε = 0, ¼, ½, ⅔ (as in Table 1), 0.9, 1 and 1¼, each minibatch solved by
Sinkhorn's algorithm, and measures modes, quality and code at the end. Leaves OUTPUT.json, OUTPUT.md
and OUTPUT.png; a run that was interrupted goes on where it was. About three minutes a run on one core.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from infosink.training.configuration import preset_configuration
from matplotlib.figure import Figure
from measured import asked, compare, table
from provenance import provenance

RATIOS = (0.0, 0.25, 0.5, 2 / 3, 0.9, 1.0, 1.25)  # two thirds is Table 1's


def main() -> None:
    """Trains, measures and writes."""
    arguments = asked(__doc__, Path("docs/balance"))

    origin = provenance("torch", "numpy")
    base = preset_configuration("gaussians", "quick", iterations=arguments.iterations).to_mapping()
    variants = {f"{ratio:.3g}": {"lambda": ratio * base["epsilon"]} for ratio in RATIOS}
    found = compare(variants, base, range(arguments.seeds), arguments.output, origin)
    arguments.output.with_suffix(".md").write_text(table(found, "λ / ε") + "\n")

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, label in (
        ("code_mode_purity", "code-mode purity"),
        ("recovery", "code recovery"),
        ("high_quality", "share of high-quality samples"),
    ):
        means = [statistics.mean(run[name] for run in found[f"{ratio:.3g}"]) for ratio in RATIOS]
        (line,) = axes.plot(RATIOS, means, label=label)
        for ratio in RATIOS:
            runs = found[f"{ratio:.3g}"]
            axes.plot([ratio] * len(runs), [run[name] for run in runs], ".", color=line.get_color(), markersize=5)
    axes.axvline(1, color="grey", linewidth=0.8, linestyle="--", label="λ = ε")
    axes.set(xlabel="λ / ε", ylim=(0, 1.03), title="25 Gaussians: the weight of the information term")
    axes.legend()
    figure.savefig(arguments.output.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
