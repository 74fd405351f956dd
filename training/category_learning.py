"""What Q's category learns that no plan teaches: invariance, categories merged from clusters, and a few labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .anchors import Anchors, draw_anchors, known_labels, require_anchors, spread_labels
from .configuration import Configuration
from .datasets import Dataset
from .ground_cost import GROUND_COSTS
from .invariance import background_of, deform, invariance_information
from .merging import best_order, cluster_joint, merge_clusters
from .networks import Networks, as_in_inference, running_statistics_kept
from .randomness import stream

Statistics = dict[str, Tensor]

_ANCHORED = 128  # drawn in each iteration from all whose label is known
_SAMPLES = 1000  # to compare merged categories with Q's
_BLOCK = 500


class CategoryLearning:
    """The terms of Q's loss beyond (31), each where it is on, and what happens to categories between iterations.

    Args:
        networks: whose trunk and heads learn.
        dataset: the samples, labelled where there are anchors.
        settings: the weights.

    Raises:
        ConfigurationError: the data set cannot give the anchors that the settings ask for.
    """

    def __init__(self, networks: Networks, dataset: Dataset, settings: Configuration) -> None:
        self.networks, self.dataset, self.settings = networks, dataset, settings
        self.categories = settings.categories
        self.background = background_of(dataset)
        self.anchors: Anchors | None = None
        if settings.anchor_labels:
            require_anchors(settings, dataset)
            count, random = settings.anchored_samples, stream(settings.seed, "anchors")
            self.anchors = draw_anchors(dataset, settings.anchor_labels, count, random)
            self._known(self.anchors).copy_(known_labels(self.anchors, self.categories))
        # Labels that spread say what I_τ would guess, and may say otherwise.
        self.guesses_categories = self.anchors is None or not settings.merge_after

    def loss(self, iteration: int, random: torch.Generator) -> tuple[Tensor, Statistics]:
        """−α I_τ, plus how badly Q knows the merged categories, plus how badly it knows the anchors' labels.

        The last with the weight α where labels spread, since I_τ then leaves Q's category to them, else 1.
        """
        loss, statistics = torch.zeros((), device=random.device), Statistics()
        if self.settings.invariance:
            term, taught = self._invariance(iteration, random)
            loss = taught - self.settings.invariance * term
            statistics |= {"invariance": term.detach(), "taught": taught.detach()}
        if self.anchors is not None:
            term = self._anchoring(self.anchors, random)
            # What stands in the place of I_τ has its weight: (31) pulls as hard.
            loss = loss + (1.0 if self.guesses_categories else self.settings.invariance) * term
            statistics["anchoring"] = term.detach()
        return loss, statistics

    def after(self, iteration: int, random: torch.Generator) -> None:
        """Merges clusters, or lets the anchors' labels spread, where it is time to."""
        period = self.settings.merge_after
        if self.anchors is None and iteration == period:
            self._merge(random)
        elif self.anchors is not None and period and iteration % period == 0:
            self._spread(self.anchors)

    def _invariance(self, iteration: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """I_τ of Q's category plus that of the over-clusters; and how badly Q knows the merged ones.

        The second is −E log q(k(c̃(y)) | Ty), c̃ ~ q̃(·|y), with k the category of a cluster: 0 but while Q is taught.
        """
        settings, networks = self.settings, self.networks
        learning = self.guesses_categories and iteration > min(settings.merge_after, settings.warm_up)
        being_taught = learning and 0 < settings.merge_after < iteration <= settings.taught_until
        images = self.dataset.draw(settings.view_batch_size, random)
        term = teaching = torch.zeros((), device=images.device)
        with running_statistics_kept(networks):
            features = networks.trunk(torch.cat([images, deform(images, random, self.background)]))
            if learning:
                scores, view_scores = networks.code_head(features)[:, : self.categories].chunk(2)
                term = invariance_information(scores, view_scores)
            if networks.over_clustering is not None:
                clusters, view_clusters = networks.over_clustering(features).chunk(2)
                term = term + invariance_information(clusters, view_clusters, settings.over_balance)
                if being_taught and networks.membership is not None:
                    membership = F.one_hot(networks.membership, self.categories).float()
                    merged = torch.softmax(clusters.detach(), dim=1) @ membership  # (B, C) @ (C, K) -> (B, K)
                    teaching = F.cross_entropy(view_scores, merged)
        return term, teaching

    def _anchoring(self, anchors: Anchors, random: torch.Generator) -> Tensor:
        """−E log q(label | y), −E log q(label | T y) over anchors and what their labels reached, by weight: their mean.

        Points are not deformed. Images are read beside their deformations, since Q is used on what is not deformed, and
        batch normalisation tells the two apart.
        """
        known = self._known(anchors)
        chosen = torch.multinomial(known.sum(dim=1), _ANCHORED, replacement=True, generator=random)
        samples, labels = anchors.samples[chosen], known[chosen].argmax(dim=1)
        if self.dataset.frame is not None:
            samples = torch.cat([samples, deform(samples, random, self.background)])
            labels = labels.repeat(2)
        with running_statistics_kept(self.networks):
            scores = self.networks.code_head(self.networks.trunk(samples))
        return F.cross_entropy(scores[:, : self.categories], labels)

    def _merge(self, random: torch.Generator) -> None:
        """Gives each over-cluster its category, by what they share.

        The categories take the order that agrees best with Q's, for G's sake, which heeds it already.
        """
        networks, ground_cost = self.networks, GROUND_COSTS[self.settings.ground_cost]
        if networks.over_clustering is None or networks.membership is None:
            return
        count = self.settings.merge_samples
        joint = cluster_joint(networks, self.dataset, ground_cost, self.background, random, count=count)
        samples = self.dataset.draw(_SAMPLES, random)
        with torch.no_grad(), running_statistics_kept(networks):
            features = networks.trunk(samples)
            clusters = torch.softmax(networks.over_clustering(features), dim=1)
            q = torch.softmax(networks.code_head(features)[:, : self.categories], dim=1)
        membership = merge_clusters(joint, self.categories)
        merged = clusters @ F.one_hot(membership, self.categories).to(clusters)  # (n, C) @ (C, K) -> (n, K)
        networks.membership.copy_(best_order(merged.T @ q)[membership])

    def _spread(self, anchors: Anchors) -> None:
        """Lets the anchors' labels reach the samples beside them, by what the trunk sees."""
        blocks = torch.split(anchors.samples, _BLOCK)
        with torch.no_grad(), as_in_inference(self.networks.trunk):
            features = torch.cat([self.networks.trunk(block) for block in blocks])
        self._known(anchors).copy_(spread_labels(features, known_labels(anchors, self.categories)))

    def _known(self, anchors: Anchors) -> Tensor:
        """What is known of their labels, which the networks' state keeps."""
        known = self.networks.anchored
        if known is None or len(known) != len(anchors.samples):
            raise ValueError(f"the networks have no room for the labels of {len(anchors.samples)} samples")
        return known
