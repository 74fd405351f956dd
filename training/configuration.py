"""The hyperparameters of a run, and the presets of Tables 1 and 2."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .latent import LatentSpace

SolverName = Literal["neural-duals", "sinkhorn"]
DualUpdate = Literal["sequential", "joint"]
GroundCostName = Literal["l1", "squared-l2"]
Parametrisation = Literal["dot-product", "normalised", "log-density"]
InformationBound = Literal["fenchel", "donsker-varadhan"]
CategoryObjective = Literal["information", "invariance"]
Precision = Literal["float32", "bfloat16"]


class ConfigurationError(Exception):
    """A hyperparameter that cannot be used; the message names the value, the limit and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Everything that determines a run, together with the data.

    Attributes:
        dataset: the name of the data set.
        preset: the preset the values started from; it has no effect of its own.
        categories, styles, noise: the dimensions of the latent space.
        ground_cost: c; per pixel for images.
        epsilon: ε, the entropic smoothing, in units of the ground cost.
        lambda_: λ, the weight of the information term; 0 is the baseline Sinkhorn GAN.
        parametrisation: of Q; "dot-product" is the paper's, "log-density" that of (22), "normalised"
            the dot product as a density.
        information_bound: what Q is trained to raise; "fenchel" is (20), the paper's.
        shared_batch: whether the self term's z' is the data term's z, which saves a third of G's passes. Either
            term's expectation is the same, since z'' stays independent.
        debias: whether the self term −½ W(G♯ζ, G♯ζ) is part of the loss.
        informed_self_term: whether λQ is part of the self term's plan as of the data term's (sinkhorn solver only).
        solver: "neural-duals" is the paper's Algorithm 1; "sinkhorn" solves each minibatch.
        dual_steps: n_D, the updates of D2 and D4 for each of G (neural duals).
        dual_update: "sequential" as published, or "joint": one step on both losses.
        sinkhorn_iterations: iterations on each minibatch (sinkhorn).
        batch_size: B.
        iterations: the number of generator updates.
        dual_learning_rate: of D2, D4 and the trunk.
        code_learning_rate, generator_learning_rate: of Q's heads, and of G.
        adam_beta1, adam_beta2: of all Adam optimisers.
        code_weight_decay: of Q's heads, coupled as in the original Adam.
        invariance: α, the weight of the invariance information I_τ of Q's category under
            small deformations (sinkhorn solver and images only).
        category_objective: what Q's category learns from; "information" is (31), with I_τ added, "invariance" is I_τ
            alone, and the plan then teaches Q its styles only.
        over_clusters: the outputs of an auxiliary head trained with the same term; 0 for none.
        over_balance: the weight of the marginal entropies in that head's term; above 1, more of its clusters are used.
        warm_up: the first iterations, in which Q learns by I_τ alone, and G and the plan wait.
        merge_after: the iteration after which the over-clusters are merged into categories; 0 for never. With anchors,
            their labels spread instead, and again after as many iterations.
        merge_samples: the images by which it is decided what belongs together; with anchors, those beside them.
        taught_until: the last iteration in which Q is taught the merged categories.
        anchor_labels: the labelled training samples of each label that tie category i to label i; 0 for none.
        view_batch_size: the images a step that I_τ is estimated on.
        listening: μ, the weight of E log q(category | deformed G(z)), which moves G only.
        style_listening: the weight of E log q(style | G(z)), which moves G only.
        listening_from: the last iteration without the two.
        averaging: the decay of the exponential moving average of G's weights that is used for
            sampling and export; 0 for none.
        annealing: the last iterations, over which all learning rates fall linearly towards 0; 0 for none.
        precision: of the generator's and the trunk's passes in training; weights and all else are float32.
        seed: of everything random.
    """

    dataset: str
    preset: str
    categories: int
    styles: int
    noise: int
    ground_cost: GroundCostName = "l1"
    epsilon: float
    lambda_: float
    parametrisation: Parametrisation = "dot-product"
    information_bound: InformationBound = "fenchel"
    debias: bool = True
    shared_batch: bool = False
    informed_self_term: bool = False
    solver: SolverName = "neural-duals"
    dual_steps: int = 5
    dual_update: DualUpdate = "sequential"
    sinkhorn_iterations: int = 30
    batch_size: int
    iterations: int
    dual_learning_rate: float = 2e-4
    code_learning_rate: float = 2e-4
    generator_learning_rate: float = 2e-4
    adam_beta1: float
    adam_beta2: float
    code_weight_decay: float = 0.0
    invariance: float = 0.0
    category_objective: CategoryObjective = "information"
    over_clusters: int = 0
    over_balance: float = 1.0
    warm_up: int = 0
    merge_after: int = 0
    merge_samples: int = 3000
    taught_until: int = 0
    anchor_labels: int = 0
    view_batch_size: int = 192
    listening: float = 0.0
    style_listening: float = 0.0
    listening_from: int = 0
    averaging: float = 0.0
    annealing: int = 0
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        at_least = {"categories": 2, "styles": 0, "noise": 0, "dual_steps": 1, "sinkhorn_iterations": 1,
                    "batch_size": 2, "iterations": 1, "over_clusters": 0, "view_batch_size": 2,
                    "listening_from": 0, "warm_up": 0, "merge_after": 0, "taught_until": 0, "annealing": 0,
                    "anchor_labels": 0, "merge_samples": 10, "seed": 0}  # fmt: skip
        at_most = {"categories": 1000, "styles": 100, "noise": 10_000, "dual_steps": 1000,
                   "sinkhorn_iterations": 10_000, "batch_size": 65_536, "iterations": 10**9, "over_clusters": 10_000,
                   "view_batch_size": 65_536, "merge_samples": 20_000, "seed": 2**63 - 1}  # fmt: skip
        for name, limit in at_least.items():
            if getattr(self, name) < limit:
                raise ConfigurationError(f"{option_of(name)} is {getattr(self, name)}; it must be at least {limit}")
        for name, limit in at_most.items():
            if getattr(self, name) > limit:
                raise ConfigurationError(f"{option_of(name)} is {getattr(self, name)}; it must be at most {limit}")
        for name in ("epsilon", "dual_learning_rate", "code_learning_rate", "generator_learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigurationError(f"{option_of(name)} is {getattr(self, name)}; it must be positive and finite")
        for name in ("lambda_", "code_weight_decay", "invariance", "over_balance", "listening", "style_listening"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigurationError(f"{option_of(name)} is {getattr(self, name)}; it must be 0 or positive")
        for name in ("adam_beta1", "adam_beta2", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"{option_of(name)} is {getattr(self, name)}; it must be in [0, 1)")
        choices = {"solver": SolverName, "dual_update": DualUpdate, "ground_cost": GroundCostName,
                   "parametrisation": Parametrisation, "information_bound": InformationBound,
                   "category_objective": CategoryObjective, "precision": Precision}  # fmt: skip
        for name, literal in choices.items():
            if getattr(self, name) not in get_args(literal):
                raise ConfigurationError(
                    f"{option_of(name)} is {getattr(self, name)!r}; choose from {', '.join(get_args(literal))}"
                )
        if self.invariance and self.solver != "sinkhorn":
            raise ConfigurationError(
                "--invariance trains the trunk through Q, and the neural duals share that trunk: "
                "use --solver sinkhorn or --invariance 0"
            )
        if self.invariance and self.dataset in POINT_DATASETS:
            raise ConfigurationError(f"--invariance deforms images and {self.dataset} has points: use --invariance 0")
        if self.informed_self_term and self.solver != "sinkhorn":
            raise ConfigurationError(
                "--informed-self-term changes the self term, whose potential the neural duals learn without it: "
                "use --solver sinkhorn or --no-informed-self-term"
            )
        if self.listening and not self.invariance:
            raise ConfigurationError("--listening needs a Q that is invariant too: set --invariance, or --listening 0")
        if self.category_objective == "invariance" and not self.invariance:
            raise ConfigurationError(
                "--category-objective invariance leaves Q's category nothing to learn from without that term: "
                "set --invariance, or --category-objective information"
            )
        if self.warm_up and not self.invariance:
            raise ConfigurationError("--warm-up is by the invariance term: set --invariance, or --warm-up 0")
        if self.warm_up >= self.iterations:
            raise ConfigurationError(
                f"--warm-up is {self.warm_up}, and the generator learns only after it: "
                f"use fewer than the {self.iterations} of --iterations"
            )
        if self.merge_after and not self.invariance:
            raise ConfigurationError("--merge-after merges invariant clusters: set --invariance, or --merge-after 0")
        if self.merge_after and not self.merge_after < self.taught_until:
            raise ConfigurationError(
                f"--taught-until is {self.taught_until}; for Q to learn the merged categories it must be "
                f"above --merge-after, which is {self.merge_after}"
            )
        if self.merge_after and not self.categories <= self.over_clusters <= MAX_MERGED_CLUSTERS:
            raise ConfigurationError(
                f"--over-clusters is {self.over_clusters}; to merge them into {self.categories} categories it must be "
                f"from {self.categories} to {MAX_MERGED_CLUSTERS}: change it, or use --merge-after 0"
            )

    @property
    def anchored_samples(self) -> int:
        """The anchors, and the samples beside them that their labels may reach; 0 without anchors."""
        beside = self.merge_samples if self.merge_after else 0
        return self.anchor_labels * self.categories + beside if self.anchor_labels else 0

    @property
    def latent_space(self) -> LatentSpace:
        """The latent space these dimensions make."""
        return LatentSpace(self.categories, self.styles, self.noise)

    def to_mapping(self) -> dict[str, Any]:
        """All values by their names, λ's being "lambda"."""
        return {name.rstrip("_"): value for name, value in dataclasses.asdict(self).items()}

    def to_json(self) -> str:
        """All values, as indented JSON."""
        return json.dumps(self.to_mapping(), indent=2)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Configuration:
        """The configuration of such a mapping.

        Raises:
            ConfigurationError: a value is missing, unknown, of the wrong type or out of range.
        """
        types = {field.name.rstrip("_"): str(field.type) for field in dataclasses.fields(cls)}
        fields = {field.name.rstrip("_"): field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(types)):
            raise ConfigurationError(f"unknown settings: {', '.join(unknown)}")
        if missing := [name for name in types if name not in values and fields[name] in _REQUIRED]:
            raise ConfigurationError(f"settings are missing: {', '.join(missing)}")
        converted = {}
        for name, value in values.items():
            accepted = {"int": (int,), "float": (int, float), "bool": (bool,)}.get(types[name], (str,))
            if not isinstance(value, accepted) or (isinstance(value, bool) and types[name] != "bool"):
                raise ConfigurationError(f"setting {name} is {value!r}; it must be of type {types[name]}")
            try:
                converted[fields[name]] = float(value) if types[name] == "float" else value
            except OverflowError as error:
                raise ConfigurationError(f"setting {name} is too large") from error
        return cls(**converted)  # type: ignore[arg-type]  # each was checked above


_REQUIRED = {field.name for field in dataclasses.fields(Configuration) if field.default is dataclasses.MISSING}

MAX_MERGED_CLUSTERS = 500

POINT_DATASETS = ("gaussians", "eight-gaussians")

_TABLE_1 = {"lambda": 1.0} | dict(
    styles=0, noise=103, ground_cost="l1", epsilon=1.5, dual_steps=5, iterations=50_000,
    batch_size=256, adam_beta1=0.0, adam_beta2=0.9,
)  # fmt: skip

_TABLE_2 = {"lambda": 0.05} | dict(
    categories=10, styles=2, noise=88, ground_cost="l1", epsilon=0.05, dual_steps=5,
    iterations=24_200, batch_size=128, adam_beta1=0.5, adam_beta2=0.99, code_weight_decay=1e-3,
)  # fmt: skip

# Minutes on two CPU cores: every minibatch solved by Sinkhorn's algorithm, and for images the
# invariant Q and the listening generator, without which pixel costs confuse digits.
_QUICK_POINTS = dict(solver="sinkhorn", batch_size=256, iterations=5_000, sinkhorn_iterations=30)
_QUICK_IMAGES = dict(
    solver="sinkhorn", batch_size=100, iterations=1_000, dual_learning_rate=5e-4, code_learning_rate=5e-4,
    generator_learning_rate=5e-4, invariance=1.0, over_clusters=50, listening=0.02, listening_from=200,
    averaging=0.99,
)  # fmt: skip

# Past the paper: docs/experiments.md says what each of these does, and what was tried beside them.
_BEST_IMAGES = _QUICK_IMAGES | dict(
    iterations=1_500, invariance=3.0, over_balance=1.5, merge_after=400, taught_until=600, annealing=300,
    precision="bfloat16",
)  # fmt: skip

_IMAGES = {"paper": _TABLE_2, "quick": _TABLE_2 | _QUICK_IMAGES, "best": _TABLE_2 | _BEST_IMAGES}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "mnist": _IMAGES,
    "fashion-mnist": _IMAGES,
    "image-folder": _IMAGES,
    "gaussians": {
        "paper": _TABLE_1 | dict(categories=25),
        "quick": _TABLE_1 | dict(categories=25) | _QUICK_POINTS,
    },
    "eight-gaussians": {
        "paper": _TABLE_1 | dict(categories=8),
        "quick": _TABLE_1 | dict(categories=8) | _QUICK_POINTS,
    },
}

DEFAULT_PRESETS = {"mnist": "best"}
"""What a data set is trained with where no preset is named; the others' is "paper"."""


def preset_configuration(dataset: str, preset: str = "paper", **overrides: Any) -> Configuration:
    """A preset of a data set with some values replaced.

    "paper" holds Tables 1 and 2, "quick" and "best" what goes past them. The paper does not give
    the batch size (256 for points and 128 for images here), nor, for points, Q's learning rate
    (that of the other networks) and weight decay (none). The caption of Figure 3 has ε = λ = 0.05
    for the Gaussians as well, against Table 1's 1.5 and 1.0; the table is followed.

    Raises:
        ConfigurationError: the data set or preset is unknown or a value is out of range.
    """
    if dataset not in PRESETS:
        raise ConfigurationError(f"unknown data set {dataset!r}; choose from {', '.join(PRESETS)}")
    if preset not in PRESETS[dataset]:
        raise ConfigurationError(f"unknown preset {preset!r}; choose from {', '.join(PRESETS[dataset])}")
    given = {name.rstrip("_"): value for name, value in overrides.items()}
    return Configuration.from_mapping({"dataset": dataset, "preset": preset} | PRESETS[dataset][preset] | given)


def option_of(name: str) -> str:
    """The command-line option of a setting."""
    return "--" + name.rstrip("_").replace("_", "-")
