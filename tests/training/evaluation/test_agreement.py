"""Agreement with the label asked for, of generators that look real digits up."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from infosink.training.datasets import open_dataset
from infosink.training.datasets.images import LabelledPixels
from infosink.training.evaluation.agreement import LabelAgreement, label_agreement
from infosink.training.evaluation.classifier import ClassifierRecipe, IndependentClassifier, train_classifier
from infosink.training.labelling import NamedCategory
from infosink.training.latent import LatentSpace
from torch import Tensor

DIGITS = "0123456789"
COUNT = 40
Generate = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def classifier(mnist_directory: Path) -> IndependentClassifier:
    mnist = open_dataset("mnist", data_directory=mnist_directory)
    part = replace(mnist, training=LabelledPixels(*(each[:3_000] for each in mnist.training)))
    return train_classifier(
        replace(part, test=LabelledPixels(*(each[:500] for each in mnist.test))), recipe=ClassifierRecipe(iterations=30)
    )


@pytest.fixture(scope="module")
def digits(mnist_directory: Path) -> list[Tensor]:
    """The first test images of each digit: ten of (COUNT, 1, 32, 32)."""
    images, labels = next(open_dataset("mnist", data_directory=mnist_directory).batches("test", 1_000))
    return [images[labels == digit][:COUNT] for digit in range(10)]


@pytest.fixture(scope="module")
def clear(classifier: IndependentClassifier, digits: list[Tensor]) -> list[Tensor]:
    """One image of each digit that the classifier reads rightly."""
    chosen = []
    for digit, images in enumerate(digits):
        certainty = classifier.probabilities(images)
        assert certainty[:, digit].max() > 0.5
        chosen.append(images[certainty[:, digit].argmax()])
    return chosen


def lookup(images: list[Tensor], latent_space: LatentSpace) -> Generate:
    """A generator that gives each category its own images, in order."""

    def generate(latents: Tensor) -> Tensor:
        category = latent_space.category_of(latents).tolist()
        earlier = [category[:index].count(each) for index, each in enumerate(category)]
        return torch.stack(
            [images[each][index % len(images[each])] for each, index in zip(category, earlier, strict=True)]
        )

    return generate


def named(labels: str) -> list[NamedCategory]:
    return [NamedCategory(label.strip(), 1.0, 0.1, 1.0) for label in labels]


def measure(
    generate: Generate, labels: str, classifier: IndependentClassifier, samples_per_label: int = COUNT
) -> LabelAgreement:
    latent_space = LatentSpace(len(labels), 2, 3)
    random = torch.Generator().manual_seed(0)
    return label_agreement(generate, latent_space, named(labels), classifier, samples_per_label, random)


def test_real_digits_agree_as_often_as_the_classifier_reads_them(classifier, digits):
    found = measure(lookup(digits, LatentSpace(10, 2, 3)), DIGITS, classifier)
    accuracy = [
        float((classifier.probabilities(images).argmax(dim=1) == digit).double().mean())
        for digit, images in enumerate(digits)
    ]
    assert found.by_category == pytest.approx(accuracy)
    assert found.by_label == pytest.approx(dict(zip(DIGITS, accuracy, strict=True)))
    assert found.mean == pytest.approx(sum(accuracy) / 10)
    assert min(accuracy) < 1  # one that never erred would not tell its errors from the generator's
    assert found.worst == pytest.approx(min(accuracy))
    assert found.worst_label == DIGITS[accuracy.index(min(accuracy))]
    assert found.seen.dtype == torch.int64
    assert found.seen.sum(dim=1).tolist() == [COUNT] * 10
    assert found.seen.diagonal().tolist() == pytest.approx([share * COUNT for share in accuracy])


def test_permuted_categories_score_1_under_their_names(classifier, clear):
    permuted = "3140529687"
    images = [clear[int(label)][None] for label in permuted]
    generate = lookup(images, LatentSpace(10, 2, 3))
    assert measure(generate, permuted, classifier).by_category == [1] * 10
    assert measure(generate, permuted, classifier)[:2] == (1, 1)
    assert measure(generate, DIGITS, classifier).mean == pytest.approx(0.2)  # 1 and 8 are where they were


def test_a_generator_that_ignores_its_code_scores_a_tenth(classifier, clear):
    random = torch.Generator().manual_seed(0)

    def generate(latents: Tensor) -> Tensor:
        return torch.stack(clear)[torch.randint(10, (len(latents),), generator=random)]

    found = measure(generate, DIGITS, classifier, samples_per_label=300)
    assert found.mean == pytest.approx(0.1, abs=0.025)  # the standard error is 0.0055
    assert found.seen.sum() == 3_000


def test_a_label_that_no_category_bears_is_the_worst(classifier, clear):
    labels = "012345678 "  # the last category bears none
    found = measure(lookup([image[None] for image in clear], LatentSpace(10, 2, 3)), labels, classifier)
    assert (found.mean, found.worst, found.worst_label, found.by_label["9"]) == (0.9, 0, "9", 0)
    assert found.by_category[:9] == [1] * 9
    assert math.isnan(found.by_category[9])
    assert found.seen[9].sum() == 0


def test_categories_of_one_label_count_alike(classifier, clear):
    """Two of the three categories of "0" show it, and the third shows a 1: asked for "0", two in three agree."""
    images = [clear[digit][None] for digit in (0, 0, 1)]
    found = measure(lookup(images, LatentSpace(3, 2, 3)), "000", classifier, samples_per_label=100)
    assert found.by_category == [1, 1, 0]
    assert found.by_label["0"] == pytest.approx(2 / 3)
    assert found.seen[0, :2].tolist() == [67, 33]
    assert measure(lookup(images, LatentSpace(3, 2, 3)), "000", classifier, samples_per_label=1).seen[0].sum() == 3


def test_everything_but_the_category_comes_from_the_prior(classifier, clear):
    drawn = []

    def generate(latents: Tensor) -> Tensor:
        drawn.append(latents)
        return torch.stack(clear)[latents[:, :10].argmax(dim=1)]

    measure(generate, DIGITS, classifier, samples_per_label=300)
    latents = torch.cat(drawn)
    assert torch.equal(latents[:, :10].sum(dim=1), torch.ones(3_000))
    style, noise = latents[:, 10:12], latents[:, 12:]
    assert style.abs().max() <= 1
    torch.testing.assert_close(style.var(dim=0), torch.full((2,), 1 / 3), atol=0.02, rtol=0)
    torch.testing.assert_close(noise.var(dim=0), torch.ones(3), atol=0.1, rtol=0)
