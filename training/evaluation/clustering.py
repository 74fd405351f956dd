"""How well the categories, found without labels, agree with the labels."""

from __future__ import annotations

from typing import NamedTuple

from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor


class ClusterAgreement(NamedTuple):
    """Agreement of two partitions of the same samples; 1 in all four where they are the same one."""

    accuracy: float  # Hungarian, in (0, 1]
    normalised_mutual_information: float  # in [0, 1], about 0 where they are independent
    adjusted_rand_index: float  # in [-1/2, 1], on average 0 where they are independent
    purity: float  # in (0, 1]


def cluster_agreement(category: Tensor, label: Tensor) -> ClusterAgreement:
    """Compares the categories of samples with their labels; what either is called does not matter.

    With n_kl the number of samples of category k and label l, and n of all of them:

        accuracy    max over one-to-one pairings π of Σ_k n_{k π(k)} / n  (Kuhn 1955; Yang et al. 2010)
        normalised mutual information    I(k; l) / ½ (H(k) + H(l))             (Vinh et al. 2010)
        adjusted Rand index    share of pairs of samples on which both partitions agree, shifted
                    and scaled to 0 in expectation and 1 at best         (Hubert and Arabie 1985)
        purity      Σ_k max_l n_kl / n                                   (Manning et al. 2008)

    A category is paired with one label at most, and a label with one category. With more
    categories than labels, the samples of categories left over therefore count as wrong; with
    fewer, those of the labels left over. Purity has no such rule: it rises with the number of
    categories, to 1 where each sample has its own, and never falls below the share of the most
    frequent label, which one category for everything reaches. It is to be read next to both.

    Args:
        category: of each sample, (count,) int64.
        label: of each sample, (count,) int64.

    Raises:
        ValueError: there is no sample, or not one label for each category.
    """
    if category.shape != label.shape or category.ndim != 1 or not len(category):
        raise ValueError(
            f"categories {tuple(category.shape)} and labels {tuple(label.shape)} do not pair up: "
            "give one of each for every sample, and at least one sample"
        )
    categories, labels = category.cpu().numpy(), label.cpu().numpy()
    table = contingency_matrix(categories, labels)
    paired = linear_sum_assignment(table, maximize=True)
    return ClusterAgreement(
        accuracy=float(table[paired].sum() / len(category)),
        normalised_mutual_information=float(normalized_mutual_info_score(labels, categories)),
        adjusted_rand_index=float(adjusted_rand_score(labels, categories)),
        purity=float(table.max(axis=1).sum() / len(category)),
    )
