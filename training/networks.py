"""The networks of Table 3: a generator, and the dual networks D2, D4 and D_Q on one shared trunk.

Where Table 3 is silent: convolutions are padded by 1 (so that 32 → 16 → 8), weights take
PyTorch's default initialisation, and samples of c channels take c in place of 1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .configuration import Precision
from .latent import LatentSpace

IMAGE_SIZE = 32
NEGATIVE_SLOPE = 0.2


class MixedPrecision(nn.Sequential):
    """Layers whose training passes may compute in bfloat16; the weights and the output stay float32.

    A pass in evaluation mode without gradients is in float32, and so is every pass of an
    inference_copy: what is measured and exported does not depend on the precision of training.

    Attributes:
        reduced: whether training passes are in bfloat16.
    """

    reduced = False

    def forward(self, x: Tensor) -> Tensor:
        """All layers in turn."""
        reduced = self.reduced and (self.training or torch.is_grad_enabled())
        with torch.autocast(x.device.type, torch.bfloat16, enabled=reduced):
            for layer in self:
                x = layer(x)
        return x.float() if reduced else x


class Networks(nn.Module):
    """All networks of one model.

    Attributes:
        generator: G, latents (batch, dimension) -> samples (batch, *sample_shape), images in [-1, 1].
        trunk: the shared layers, samples -> features (batch, feature_dimension).
        potential: head of D2, the dual potential of the data, features -> (batch, 1).
        self_potential: head of D4, the dual potential of the self term, features -> (batch, 1).
        code_head: head of D_Q, features -> scores (batch, code_outputs).
        over_clustering: an auxiliary categorical head, features -> (batch, over_clusters); None without one.
        membership: the category of each over-cluster, (over_clusters,) int64, all 0 before they are merged; None
            where they never are.
        anchored: what is known of the labels of the anchors and of the samples beside them, (samples, categories), see
            spread_labels; None without anchors.
        averaged_generator: the moving average of G; None without one.
    """

    over_clustering: nn.Module | None
    membership: Tensor | None
    anchored: Tensor | None
    averaged_generator: nn.Module | None

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        latent_space: LatentSpace,
        *,
        code_outputs: int,
        over_clusters: int = 0,
        merging: bool = False,
        anchored: int = 0,
        averaging: bool = False,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if len(sample_shape) == 3:
            channels, height, width = sample_shape
            if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
                raise ValueError(f"images must be {IMAGE_SIZE}x{IMAGE_SIZE}, not {height}x{width}: resize or pad them")
            feature_dimension = 1024
            self.generator: nn.Module = image_generator(latent_space.dimension, channels)
            self.trunk: nn.Module = image_trunk(channels, feature_dimension)
            self.potential: nn.Module = nn.Linear(feature_dimension, 1)
            self.self_potential: nn.Module = nn.Linear(feature_dimension, 1)
            self.code_head: nn.Module = nn.Sequential(
                *fully_connected(feature_dimension, 128), nn.Linear(128, code_outputs)
            )
        else:
            feature_dimension = 512
            (dimensions,) = sample_shape
            self.generator = point_generator(latent_space.dimension, dimensions)
            self.trunk = nn.Sequential(*fully_connected(dimensions, 512), *fully_connected(512, feature_dimension))
            self.potential = point_head(feature_dimension, 1)
            self.self_potential = point_head(feature_dimension, 1)
            self.code_head = point_head(feature_dimension, code_outputs)
        self.over_clustering = nn.Linear(feature_dimension, over_clusters) if over_clusters else None
        self.register_buffer("membership", torch.zeros(over_clusters, dtype=torch.int64) if merging else None)
        self.register_buffer("anchored", torch.zeros(anchored, latent_space.categories) if anchored else None)
        self.averaged_generator = copy.deepcopy(self.generator).requires_grad_(False) if averaging else None
        for network in (self.generator, self.trunk):
            if isinstance(network, MixedPrecision):
                network.reduced = precision == "bfloat16"

    @property
    def sampling_generator(self) -> nn.Module:
        """The generator to draw samples with: the moving average where there is one."""
        return self.generator if self.averaged_generator is None else self.averaged_generator

    @torch.no_grad()
    def average_generator(self, decay: float) -> None:
        """Moves the average: weights θ̄ ← decay θ̄ + (1 − decay) θ; batch-norm statistics are copied."""
        if self.averaged_generator is None:
            return
        weights = zip(self.averaged_generator.parameters(), self.generator.parameters(), strict=True)
        for averaged_weight, weight in weights:
            averaged_weight.lerp_(weight, 1 - decay)
        buffers = zip(self.averaged_generator.buffers(), self.generator.buffers(), strict=True)
        for averaged_buffer, buffer in buffers:
            averaged_buffer.copy_(buffer)


def fully_connected(inputs: int, outputs: int) -> list[nn.Module]:
    """FC - b.n. - LReLU."""
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.LeakyReLU(NEGATIVE_SLOPE)]


def image_generator(latent_dimension: int, channels: int) -> MixedPrecision:
    """G of Table 3 (b): latents -> images (batch, channels, 32, 32) in [-1, 1]."""
    return MixedPrecision(
        *fully_connected(latent_dimension, 1024),
        *fully_connected(1024, 128 * 8 * 8),
        nn.Unflatten(1, (128, 8, 8)),
        nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.ConvTranspose2d(64, channels, kernel_size=4, stride=2, padding=1),
        nn.Tanh(),
    )


def image_trunk(channels: int, feature_dimension: int) -> MixedPrecision:
    """The shared layers of Table 3 (b): images (batch, channels, 32, 32) -> features."""
    return MixedPrecision(
        nn.Conv2d(channels, 64, kernel_size=4, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Conv2d(64, 128, kernel_size=4, stride=2, padding=1),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Flatten(),
        *fully_connected(128 * 8 * 8, feature_dimension),
    )


def point_generator(latent_dimension: int, dimensions: int) -> nn.Sequential:
    """G of Table 3 (a), which has no batch norm: latents -> points (batch, dimensions)."""
    return nn.Sequential(
        nn.Linear(latent_dimension, 512),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Linear(512, 512),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Linear(512, 512),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Linear(512, dimensions),
    )


def point_head(feature_dimension: int, outputs: int) -> nn.Sequential:
    """A specific head of Table 3 (a)."""
    return nn.Sequential(*fully_connected(feature_dimension, 512), nn.Linear(512, outputs))


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """The batch-norm layers of a module."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


@contextmanager
def running_statistics_kept(*modules: nn.Module) -> Iterator[None]:
    """Within, training-mode passes normalise by their batch but leave the running statistics alone.

    Running statistics must describe one distribution: the trunk's follow real data only.
    """
    layers = [layer for module in modules for layer in batch_norms(module) if layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def as_in_inference(*modules: nn.Module) -> Iterator[None]:
    """Within, modules normalise by their running statistics, as they will once training is over.

    What is optimised against a network must not hold on to the statistics of its own batch: a
    generator finds specks that only those make legible.
    """
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, were_training, strict=True):
            module.train(was_training)


@torch.no_grad()
def recompute_running_statistics(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces a module's batch-norm running statistics by their average over the given batches."""
    layers = list(batch_norms(module))
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = module.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over all batches
    module.train()
    for batch in batches:
        module(batch)
    module.train(was_training)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def inference_copy(networks: Networks, samples: Iterable[Tensor], latents: Iterable[Tensor]) -> Networks:
    """A copy in evaluation mode whose running statistics describe the final weights.

    Trunk and code head are passed over real samples, the generator over prior latents. The
    networks handed in are unchanged, so that training can go on from them.
    """
    networks = copy.deepcopy(networks).eval()
    for module in networks.modules():
        if isinstance(module, MixedPrecision):
            module.reduced = False
    recompute_running_statistics(nn.Sequential(networks.trunk, networks.code_head), samples)
    recompute_running_statistics(networks.sampling_generator, latents)
    return networks.eval().requires_grad_(False)
