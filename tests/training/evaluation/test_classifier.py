"""The independent classifier: that it learns, that it is the same every time, and that its cache can be trusted."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from infosink.training.datasets import open_dataset
from infosink.training.datasets.images import ImageDataset, LabelledPixels
from infosink.training.evaluation.classifier import (
    ClassifierError,
    ClassifierRecipe,
    load_classifier,
    train_classifier,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SHORT = ClassifierRecipe(iterations=3, batch_size=16)


@pytest.fixture(scope="module")
def mnist(mnist_directory: Path) -> ImageDataset:
    return open_dataset("mnist", data_directory=mnist_directory)


def part(dataset: ImageDataset, training: int, test: int) -> ImageDataset:
    """The first images of each split."""
    return replace(
        dataset,
        training=LabelledPixels(*(each[:training] for each in dataset.training)),
        test=LabelledPixels(*(each[:test] for each in dataset.test)),
    )


@pytest.fixture
def few(mnist: ImageDataset) -> ImageDataset:
    return part(mnist, 100, 50)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("INFOSINK_CACHE", str(tmp_path))
    return tmp_path / "classifiers"


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_a_few_thousand_digits_are_enough_to_read_most(mnist):
    shares = []
    dataset = part(mnist, 3_000, 500)
    recipe = ClassifierRecipe(iterations=40)
    classifier = train_classifier(dataset, lambda text, share: shares.append(share), recipe=recipe)
    assert classifier.test_accuracy >= 0.95
    assert shares == [iteration / 40 for iteration in range(1, 41)]
    images, labels = next(dataset.batches("test", 500))
    probabilities, features = classifier.probabilities(images), classifier.features(images)
    assert float((probabilities.argmax(dim=1) == labels).double().mean()) == classifier.test_accuracy
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(500))
    assert features.shape == (500, 128)
    torch.testing.assert_close(torch.softmax(classifier.network[-1](features), dim=1), probabilities)
    alone = classifier.probabilities(images[7:8])
    torch.testing.assert_close(alone, probabilities[7:8])


@pytest.mark.slow
def test_mnist_is_read_better_than_99_in_100(mnist):
    assert train_classifier(mnist).test_accuracy >= 0.99


def test_the_weights_depend_on_nothing_but_data_and_recipe(few, two_threads):
    torch.manual_seed(1)
    first = train_classifier(few, recipe=SHORT)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert train_classifier(few, recipe=SHORT).sha256 == first.sha256
    assert torch.equal(torch.get_rng_state(), before)
    assert train_classifier(few, recipe=replace(SHORT, seed=1)).sha256 != first.sha256


def test_colour_images_and_fewer_than_a_batch_will_do(few):
    colour = replace(
        few,
        frame=replace(few.frame, channels=3),
        training=LabelledPixels(few.training.pixels[:9].repeat(1, 3, 1, 1), few.training.labels[:9]),
        test=LabelledPixels(few.test.pixels.repeat(1, 3, 1, 1), few.test.labels),
    )
    classifier = train_classifier(colour, recipe=SHORT)
    assert classifier.probabilities(next(colour.batches("test", 5))[0]).shape == (5, 10)


def test_the_second_request_reads_what_the_first_one_trained(few, cache):
    told = []
    first = load_classifier(few, lambda *words: told.append(words), recipe=SHORT)
    assert len(told) == 3
    second = load_classifier(few, lambda *words: told.append(words), recipe=SHORT)
    assert len(told) == 3
    assert (second.sha256, second.test_accuracy, second.label_names) == (
        first.sha256,
        first.test_accuracy,
        first.label_names,
    )
    images, _ = next(few.batches("test", 50))
    assert torch.equal(second.probabilities(images), first.probabilities(images))
    (path,) = cache.iterdir()
    with safe_open(path, framework="pt") as file:
        (header,) = (json.loads(text) for text in file.metadata().values())
    assert header["recipe"]["iterations"] == 3
    assert (header["test_accuracy"], header["torch"]) == (first.test_accuracy, torch.__version__)


@pytest.mark.parametrize("change", ["recipe", "data", "names"])
def test_another_recipe_or_other_data_is_another_classifier(few, cache, change):
    load_classifier(few, recipe=SHORT)
    other, recipe = few, SHORT
    if change == "recipe":
        recipe = replace(SHORT, learning_rate=0.01)
    elif change == "data":
        other = part(few, 99, 50)
    else:
        other = replace(few, label_names=tuple("abcdefghij"))
    assert load_classifier(other, recipe=recipe).label_names == other.label_names
    assert len(list(cache.iterdir())) == 2


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)


def foreign(path: Path) -> None:
    save_file({"weight": torch.ones(2)}, path)


def headless(path: Path) -> None:
    save_file(load_file(path), path, {"infosink-classifier-1": "[]"})


def other_data(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        ((name, text),) = file.metadata().items()
    save_file(load_file(path), path, {name: json.dumps(json.loads(text) | {"key": "0" * 64})})


@pytest.mark.parametrize("damage", [truncated, flipped, foreign, headless, other_data])
def test_a_damaged_or_foreign_file_is_trained_over_with_a_notice(few, cache, damage, caplog):
    first = load_classifier(few, recipe=SHORT)
    (path,) = cache.iterdir()
    good = path.read_bytes()
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert load_classifier(few, recipe=SHORT).sha256 == first.sha256
    assert str(path) in caplog.text
    assert path.read_bytes() == good


def test_an_interrupt_leaves_nothing_behind(few, cache, two_threads):
    def interrupt(text: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_classifier(few, interrupt, recipe=SHORT)
    assert list(cache.iterdir()) == []
    assert torch.get_num_threads() == 2


def test_a_cache_that_cannot_be_made_is_refused_before_training(few, cache):
    cache.write_bytes(b"a file")
    told = []
    with pytest.raises(ClassifierError, match="INFOSINK_CACHE"):
        load_classifier(few, lambda *words: told.append(words), recipe=SHORT)
    assert told == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda few: open_dataset("gaussians"), "gaussians holds points"),
        (lambda few: replace(few, label_names=()), "mnist has 0 labels"),
        (lambda few: replace(few, label_names=("0",)), "mnist has 1 label,"),
    ],
)
def test_data_without_two_labels_is_refused(few, cache, spoil, reason):
    with pytest.raises(ClassifierError, match=reason):
        load_classifier(spoil(few), recipe=SHORT)
    assert not cache.exists()
