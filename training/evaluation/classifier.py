"""The independent judge: a fixed convolutional classifier, trained on the labels, that no GAN ever learns from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..datasets import Dataset, DatasetError
from ..datasets.mnist_files import cache_directory
from ..randomness import derived_seed, stream
from ..replacement import replace_file

Progress = Callable[[str, float], None]

FEATURES = 128

_FORMAT = "infosink-classifier-1"  # a new one whenever the network or its training changes, so that all train anew
_BATCH = 500
_MAX_ROTATION = 0.2  # radians
_MAX_LOG_SCALE = 0.15
_MAX_SHIFT = 0.125  # of half the image, 2 pixels of 32

_logger = logging.getLogger(__name__)


class ClassifierError(Exception):
    """A classifier that cannot be had for this data; the message says why and what to do."""


@dataclass(frozen=True)
class ClassifierRecipe:
    """All that the weights depend on beside the data and the version of this module.

    Training is by Adam on the cross entropy, with PyTorch's one-cycle schedule of the learning
    rate, on images that are slightly rotated, scaled and shifted at random.

    Attributes:
        iterations: of `batch_size` images; 3,280 are seven times through MNIST.
        batch_size: images an iteration; all, where the data has fewer.
        learning_rate: the largest of the cycle.
        seed: of the initial weights, the order of the images and their deformation. It is not the run's.
    """

    iterations: int = 3280
    batch_size: int = 128
    learning_rate: float = 0.005
    seed: int = 0


RECIPE = ClassifierRecipe()


@dataclass(frozen=True)
class IndependentClassifier:
    """A trained classifier, in evaluation mode on the CPU.

    Attributes:
        label_names: what its outputs stand for.
        test_accuracy: the share of the test images that it labels rightly.
        sha256: of its weights and running statistics, in hexadecimal.
        network: images (batch, channels, 32, 32) -> logits (batch, labels).
    """

    label_names: tuple[str, ...]
    test_accuracy: float
    sha256: str
    network: nn.Sequential

    def probabilities(self, images: Tensor) -> Tensor:
        """P(label | image): (n, channels, 32, 32) in [-1, 1] -> (n, labels)."""
        return torch.softmax(_in_batches(self.network, images), dim=1)

    def features(self, images: Tensor) -> Tensor:
        """The activations of the last layer but one: (n, channels, 32, 32) in [-1, 1] -> (n, 128), none negative."""
        return _in_batches(self.network[:-1], images)


def load_classifier(
    dataset: Dataset, progress: Progress | None = None, *, recipe: ClassifierRecipe = RECIPE
) -> IndependentClassifier:
    """Gives the classifier of a data set: trained at the first request, read from the cache ever after.

    It is kept in the folder classifiers of the cache (see cache_directory), under a name that
    digests the recipe and the description of the data. The file appears whole or not at all, so several
    processes may ask at once; a damaged or foreign one is replaced, with a notice in the log.

    Args:
        dataset: images with labels.
        progress: told what is done and the share of it that is, where the classifier must be trained.
        recipe: how to train it.

    Raises:
        ClassifierError: the data has no images or fewer than two labels, or the cache cannot be made.
    """
    _require_labelled_images(dataset)
    key = _key(dataset, recipe)
    path = _cache_directory() / f"{key[:32]}.safetensors"
    cached = _read(path, key, dataset)
    if cached is not None:
        return cached
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(None, "permission denied")
    except OSError as error:
        raise ClassifierError(
            f"the cache {path.parent} cannot be written: {error.strerror}; set INFOSINK_CACHE to a folder that can"
        ) from error
    classifier = train_classifier(dataset, progress, recipe=recipe)
    try:
        _store(path, key, classifier, recipe)
    except OSError as error:
        _logger.warning("The classifier could not be kept in %s (%s) and is trained again next time.", path, error)
    return classifier


def train_classifier(
    dataset: Dataset, progress: Progress | None = None, *, recipe: ClassifierRecipe = RECIPE
) -> IndependentClassifier:
    """Trains a classifier on the training split, and counts how much of the test split it gets right.

    The same weights, to the bit, come from the same data and recipe with the same build of PyTorch on the
    same type of processor, whatever the number of threads, the device of the data or the state of the
    global generators: it runs on one thread of the CPU, with deterministic algorithms and generators
    of its own. Other builds and processors round differently, and then accuracy agrees, not the digest.

    Args:
        dataset: images with labels.
        progress: told what is done and the share of it that is.
        recipe: how.

    Raises:
        ClassifierError: the data has no images or fewer than two labels.
    """
    _require_labelled_images(dataset)
    dataset = dataset.to(torch.device("cpu"))
    levels, labels = _training_images(dataset)
    with _deterministic():
        network = _initial_network(dataset.sample_shape[0], len(dataset.label_names), recipe.seed)
        random = stream(recipe.seed, "independent classifier")
        optimiser = torch.optim.Adam(network.parameters(), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=recipe.learning_rate, total_steps=recipe.iterations
        )
        batches = _shuffled(len(levels), recipe.batch_size, random)
        for iteration in range(recipe.iterations):
            chosen = next(batches)
            images = _deformed(levels[chosen].float() / 127.5 - 1, random)
            loss = F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), labels[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            if progress is not None:
                progress("training the independent classifier", (iteration + 1) / recipe.iterations)
        network.eval().requires_grad_(False)
        accuracy = _test_accuracy(network, dataset)
    return IndependentClassifier(dataset.label_names, accuracy, _digest(network.state_dict()), network)


def _network(channels: int, labels: int) -> nn.Sequential:
    def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]

    network = nn.Sequential(
        *convolution(channels, 32, stride=2),
        *convolution(32, 32),
        nn.MaxPool2d(2),
        *convolution(32, 64),
        *convolution(64, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, FEATURES, bias=False),
        nn.BatchNorm1d(FEATURES),
        nn.ReLU(),
        nn.Linear(FEATURES, labels),
    )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _initial_network(channels: int, labels: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "independent classifier's weights"))
        return _network(channels, labels)


@contextmanager
def _deterministic() -> Iterator[None]:
    """One thread, since sums are split over threads and rounded as they are; and no algorithm that varies."""
    threads = torch.get_num_threads()
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.set_num_threads(threads)


def _training_images(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The training split as uint8 levels, a quarter of the size, and its labels."""
    levels, labels = [], []
    for batch, batch_labels in dataset.batches("training", _BATCH):
        levels.append(((batch + 1) * 127.5).round().to(torch.uint8))
        labels.append(_present(batch_labels))
    return torch.cat(levels), torch.cat(labels)


def _shuffled(count: int, size: int, random: torch.Generator) -> Iterator[Tensor]:
    """Indices of batches without end, in a new order each time through; what fills no batch is left out."""
    size = min(size, count)
    while True:
        yield from torch.randperm(count, generator=random)[: count // size * size].view(-1, size)


def _deformed(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image rotated, scaled and shifted a little; what comes in from outside continues the border."""

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=random) * 2 - 1) * limit

    angle, scale = uniform(_MAX_ROTATION), uniform(_MAX_LOG_SCALE).exp()
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    entries = [cosine, -sine, uniform(_MAX_SHIFT), sine, cosine, uniform(_MAX_SHIFT)]
    grid = F.affine_grid(torch.stack(entries, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _test_accuracy(network: nn.Module, dataset: Dataset) -> float:
    right = count = 0
    for images, labels in dataset.batches("test", _BATCH):
        right += int((_in_batches(network, images).argmax(dim=1) == _present(labels)).sum())
        count += len(images)
    return right / count


@torch.no_grad()
def _in_batches(network: nn.Module, images: Tensor) -> Tensor:
    batches = (batch.contiguous(memory_format=torch.channels_last) for batch in torch.split(images, _BATCH))
    return torch.cat([network(batch) for batch in batches])


def _present(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ClassifierError("images without labels: there is nothing to learn; label them all")
    return labels


def _require_labelled_images(dataset: Dataset) -> None:
    if dataset.frame is None:
        raise ClassifierError(f"{dataset.name} holds points, and the classifier sees images: measure the modes instead")
    if (count := len(dataset.label_names)) < 2:
        raise ClassifierError(
            f"{dataset.name} has {count} label{'' if count == 1 else 's'}, and a classifier needs 2: "
            "put the images into sub-folders named by their label"
        )


def _cache_directory() -> Path:
    try:
        return cache_directory() / "classifiers"
    except DatasetError as error:
        raise ClassifierError("no home folder to keep the classifier in: set INFOSINK_CACHE to a folder") from error


def _key(dataset: Dataset, recipe: ClassifierRecipe) -> str:
    parts = [_FORMAT, asdict(recipe), dataset.label_names, dataset.describe()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, key: str, dataset: Dataset) -> IndependentClassifier | None:
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_FORMAT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        network = _network(dataset.sample_shape[0], len(dataset.label_names))
        network.load_state_dict(tensors)
        network.eval().requires_grad_(False)
        kept = IndependentClassifier(dataset.label_names, float(header["test_accuracy"]), _digest(tensors), network)
        intact = (header["key"], header["sha256"]) == (key, kept.sha256)
        reason: object = "it is not what was kept under that name"
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        intact, reason = False, error
    if intact:
        return kept
    _logger.warning("%s cannot be used (%s): the classifier is trained again.", path, reason)
    return None


def _store(path: Path, key: str, classifier: IndependentClassifier, recipe: ClassifierRecipe) -> None:
    header = {
        "key": key,
        "recipe": asdict(recipe),
        "label_names": classifier.label_names,
        "test_accuracy": classifier.test_accuracy,
        "sha256": classifier.sha256,
        "torch": torch.__version__,
    }
    tensors = {name: tensor.contiguous() for name, tensor in classifier.network.state_dict().items()}
    replace_file(path, save(tensors, {_FORMAT: json.dumps(header, sort_keys=True)}))
