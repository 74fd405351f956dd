"""Every measure of an evaluation: its name, definition, source and direction, for the report and the documentation."""

from __future__ import annotations

from typing import Literal, NamedTuple

Direction = Literal["higher", "lower", "one", "none"]

DIRECTION_SIGNS: dict[Direction, str] = {"higher": "↑", "lower": "↓", "one": "→ 1", "none": ""}


class Measure(NamedTuple):
    """One number of an evaluation.

    Attributes:
        name: "group.name", its key in evaluation.json.
        title: what people call it.
        definition: what it is, with its unit and source.
        better: whether "higher" or "lower" is better, or the value "one", or "none" where it only describes.
        form: how it is written, as a format specification.
        headline: whether it is among the few that say how good a model is.
    """

    name: str
    title: str
    definition: str
    better: Direction
    form: str = ".3f"
    headline: bool = False

    @property
    def group(self) -> str:
        """The part of the name before the dot."""
        return self.name.split(".")[0]

    def written(self, value: float) -> str:
        """The value as the report shows it."""
        return format(value, self.form)


GROUPS = {
    "agreement": "Samples asked for by label",
    "modes": "Modes of the mixture",
    "clustering": "Category against label",
    "codes": "The code, read back from samples",
    "style": "Style",
    "quality": "Quality and diversity",
    "plan": "The transport plan",
}

MEASURES = (
    Measure(
        "agreement.mean",
        "agreement, mean over labels",
        "the share of samples asked for by label that show it, as judged by an independent classifier, which took no "
        "part in training; the mean over all labels, 0 for one that no category bears",
        "higher",
        ".2%",
        headline=True,
    ),
    Measure("agreement.worst", "agreement, worst label", "the least of the same over labels", "higher", ".2%", True),
    Measure(
        "modes.modes",
        "modes found",
        "components with a sample within 3σ of their centre, of 2,500 samples or all where fewer were asked for "
        "(PacGAN, Lin et al. 2018)",
        "higher",
        ".0f",
        headline=True,
    ),
    Measure(
        "modes.high_quality",
        "high-quality samples",
        "the share of the same samples within 3σ of a centre (the protocol of Lin et al. 2018); for a perfect sampler "
        "in the plane it is 1 − exp(−9/2), 98.89 %",
        "higher",
        ".2%",
        headline=True,
    ),
    Measure(
        "modes.reverse_kl",
        "reverse KL",
        "KL of the samples' distribution over nearest centres from the mixture's, in nats (Lin et al. 2018)",
        "lower",
        ".4f",
        headline=True,
    ),
    Measure(
        "modes.code_mode_purity",
        "code-mode purity",
        "the share of the same samples whose nearest centre is the most frequent one of their category; to be read "
        "next to the modes found, as a generator collapsed to one mode scores 100 %, and above a floor: about 8 % of "
        "2,500 samples where 25 categories say nothing of 25 modes",
        "higher",
        ".2%",
        headline=True,
    ),
    Measure(
        "clustering.accuracy",
        "accuracy of Q's category",
        "the share of the split's samples whose argmax of q(·|y) is matched to their label, under the best matching of "
        "categories to labels (Hungarian method, Kuhn 1955)",
        "higher",
        ".2%",
        headline=True,
    ),
    Measure(
        "clustering.normalised_mutual_information",
        "normalised mutual information",
        "I(category; label) over the mean of the two entropies, arithmetic, of the same samples (Vinh et al. 2010)",
        "higher",
    ),
    Measure(
        "clustering.adjusted_rand_index",
        "adjusted Rand index",
        "agreement on pairs of samples, corrected for chance (Hubert and Arabie 1985)",
        "higher",
    ),
    Measure(
        "clustering.purity",
        "purity",
        "the share of samples that bear their category's majority label (Manning et al. 2008): never below the share "
        "of the most frequent label, and the higher the more categories there are",
        "higher",
    ),
    Measure(
        "codes.information",
        "information about the code in samples",
        "E log q(z1|G(z)) relative to the prior, in nats: a lower bound on the mutual information of code and sample "
        "(Barber and Agakov 2003)",
        "higher",
        headline=True,
    ),
    Measure(
        "codes.recovery",
        "code recovery",
        "P(argmax q(·|G(z)) = k), the share of samples from which Q reads the category they were made with",
        "higher",
        ".2%",
        headline=True,
    ),
    Measure(
        "style.constancy",
        "label constancy under style",
        "the share of a style code's sweep from −1 to 1 whose label, by the independent classifier, is that in its "
        "middle; the mean over style codes",
        "higher",
        ".2%",
    ),
    Measure(
        "style.variation_ratio",
        "variation ratio",
        "how far a style code moves the sample from its 5 % to its 95 % quantile, over how far a noise variable does, "
        "in ℓ1; the mean over style codes",
        "higher",
        ".2f",
    ),
    *(
        Measure(
            f"style.{quantity}",
            f"correlation with {quantity}",
            f"the largest |ρ| of a style code with {quantity} by image moments, ρ being Spearman's rank correlation "
            "partial on the category and the other codes; only where the real images are grey, on a dark ground",
            "none",
        )
        for quantity in ("slant", "width", "height", "ink")
    ),
    Measure(
        "quality.frechet_distance",
        "Fréchet distance",
        "between Gaussians fitted to the classifier's features of generated and real images (Dowson and Landau 1982; "
        "Heusel et al. 2017 in Inception's features): compare it with no number from other features or sample sizes. "
        "The real data in the generated ones' place are training images, on which the classifier was trained too: "
        "for this and the measures below in its features they are no neutral floor",
        "lower",
        ".2f",
        headline=True,
    ),
    Measure(
        "quality.inception_distance",
        "Inception FID",
        "the Fréchet distance in the features of Inception v3 (Heusel et al. 2017)",
        "lower",
        ".2f",
        headline=True,
    ),
    Measure(
        "quality.precision",
        "precision",
        "the share of generated images within the manifold of real ones, by the 5 nearest neighbours in the "
        "classifier's features (Kynkäänniemi et al. 2019)",
        "higher",
        ".2%",
    ),
    Measure(
        "quality.recall",
        "recall",
        "the share of real images within the manifold of generated ones (Kynkäänniemi et al. 2019)",
        "higher",
        ".2%",
    ),
    Measure(
        "quality.coverage",
        "coverage",
        "the share of real images with a generated one among their 5 nearest neighbours (Naeem et al. 2020)",
        "higher",
        ".2%",
        headline=True,
    ),
    Measure(
        "quality.spread",
        "spread",
        "the mean ground cost between distinct samples, generated over real",
        "one",
    ),
    Measure(
        "quality.spread_within_category",
        "spread within a category",
        "the same between samples of one category, that of a real one being Q's; the mean over categories",
        "one",
    ),
    Measure(
        "plan.fenchel",
        "information, Fenchel bound",
        "the bound (20) on KL(π♯γ̄ | ζ1⊗ν), in nats, of the plan: a generator may still ignore its code. As all of the "
        "plan, the average over 5 minibatches of training data, of the size trained on, with the generator as it was "
        "trained and not its moving average",
        "none",
    ),
    Measure(
        "plan.donsker_varadhan",
        "information, Donsker-Varadhan bound",
        "the same with the logarithm of the mean of exp Q, in nats (Donsker and Varadhan 1983); at least Fenchel's, "
        "and biased upwards, as the logarithm is of a minibatch's mean",
        "none",
    ),
    Measure(
        "plan.per_sample",
        "information, normalised for each sample",
        "the same with exp Q normalised for every y, in nats (Barber and Agakov 2003); at least Donsker and Varadhan's "
        "where the plan's columns are exact, see the column marginal error",
        "none",
    ),
    Measure(
        "plan.perplexity",
        "plan perplexity",
        "the effective number of data points a latent is coupled to",
        "none",
        ".2f",
    ),
    Measure(
        "plan.column_marginal_error",
        "column marginal error",
        "Σ_j |Σ_i P_ij − 1/B|, 0 to 2: how far the plan is from a coupling",
        "lower",
        ".2g",
    ),
    Measure(
        "plan.dual_gap",
        "dual gap",
        "W(ζ, ν) of a minibatch with the cost c − λQ, by Sinkhorn's algorithm to convergence (Cuturi 2013), less the "
        "solver's dual value, in units of the ground cost; at least 0, up to rounding",
        "lower",
        ".2g",
    ),
    Measure("plan.self_dual_gap", "dual gap of the self term", "the same of W(G♯ζ, G♯ζ)", "lower", ".2g"),
    Measure(
        "plan.convergence_error",
        "convergence of the dual gaps",
        "the largest column marginal error of the plans that W is read from, sought below 1e-6 for at most 16,000 "
        "iterations: where it is larger, W and with it the dual gaps are too small",
        "lower",
        ".2g",
    ),
)

BY_NAME = {measure.name: measure for measure in MEASURES}


def present(*measured: dict[str, float]) -> list[Measure]:
    """The measures that any of the mappings from name to value holds, in the order of the table."""
    return [measure for measure in MEASURES if any(measure.name in values for values in measured)]
