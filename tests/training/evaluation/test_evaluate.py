"""The evaluation of models that are known to be perfect, or to ignore their code; and of a run, on disk."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from infosink.training.configuration import Configuration, preset_configuration
from infosink.training.datasets import open_dataset
from infosink.training.datasets.gaussians import Gaussians
from infosink.training.datasets.images import ImageDataset, LabelledPixels
from infosink.training.evaluation import images
from infosink.training.evaluation.classifier import ClassifierRecipe, IndependentClassifier, train_classifier
from infosink.training.evaluation.clustering import cluster_agreement
from infosink.training.evaluation.evaluate import Evaluated, evaluate
from infosink.training.evaluation.measures import MEASURES
from infosink.training.evaluation.subject import Findings, Options, prepare
from infosink.training.labelling import NamedCategory, assigned_category
from infosink.training.latent import LatentSpace
from infosink.training.networks import Networks
from infosink.training.trained_model import TrainedModel
from infosink.training.trainer import make_networks
from torch import Tensor, nn

PNG = b"\x89PNG\r\n\x1a\n"
MakeModel = Callable[[bool], TrainedModel]


def silent(text: str, share: float) -> None:
    """Nobody to tell."""


class Samples(nn.Module):
    """A generator of what `draw` gives for a category, which heeds its code or not, and a noise variable."""

    def __init__(
        self, draw: Callable[[Tensor, Tensor], Tensor], space: LatentSpace, heeds: bool, symbols: list[int]
    ) -> None:
        super().__init__()
        self.draw, self.space, self.heeds, self.symbols = draw, space, heeds, torch.tensor(symbols)

    def forward(self, latents: Tensor) -> Tensor:
        noise = latents[:, self.space.informative :]
        if self.heeds:
            return self.draw(self.symbols[self.space.category_of(latents)], noise[:, 1:])
        anything = (uniform(noise[:, 0]) * len(self.symbols)).long().clamp_max(len(self.symbols) - 1)
        return self.draw(self.symbols[anything], noise[:, 1:])


class Nearest(nn.Module):
    """A Q whose category is that of the nearest centre."""

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.centres = centres

    def forward(self, points: Tensor) -> Tensor:
        return -10 * torch.cdist(points, self.centres).square()


def uniform(noise: Tensor) -> Tensor:
    """Standard normal numbers to uniform ones in (0, 1)."""
    return torch.special.ndtr(noise)


def model_of(settings: Configuration, dataset: Gaussians | ImageDataset, networks: Networks) -> TrainedModel:
    share = 1 / settings.categories
    categories = [NamedCategory(label, 1.0, share, 1.0) for label in dataset.label_names]
    return TrainedModel(settings, dataset, networks.eval(), categories, checkpoint_sha256="5e" * 32, iteration=7)


@pytest.fixture(scope="module")
def mixture_model() -> MakeModel:
    settings = preset_configuration("gaussians", "quick", noise=3, batch_size=32, lambda_=0.0)
    mixture = open_dataset("gaussians")
    assert isinstance(mixture, Gaussians)

    def make(heeds: bool) -> TrainedModel:
        networks = make_networks(settings, mixture.sample_shape)
        networks.generator = Samples(
            lambda component, noise: mixture.centres[component] + mixture.sigma * noise,
            settings.latent_space,
            heeds,
            list(range(25)),
        )
        networks.trunk, networks.code_head = nn.Identity(), Nearest(mixture.centres)
        return model_of(settings, mixture, networks)

    return make


def test_a_perfect_sampler_of_the_mixture_scores_what_is_known(mixture_model):
    evaluation, pictures = evaluate(mixture_model(True), Options(samples=3_000), None, silent)
    found = evaluation.measures
    assert found["modes.modes"] == 25
    assert found["modes.high_quality"] == pytest.approx(0.9889, abs=0.007)
    assert found["modes.reverse_kl"] < 0.012
    for name in ("modes.code_mode_purity", "codes.recovery", "clustering.accuracy", "clustering.purity",
                 "clustering.adjusted_rand_index", "clustering.normalised_mutual_information"):  # fmt: skip
        assert found[name] == pytest.approx(1.0, abs=1e-6), name
    assert found["codes.information"] == pytest.approx(math.log(25), abs=1e-3)
    assert found["quality.spread"] == pytest.approx(1.0, abs=0.03)
    assert found["quality.spread_within_category"] == pytest.approx(1.0, abs=0.05)
    assert evaluation.reference["modes.high_quality"] == pytest.approx(0.9889, abs=0.007)
    assert evaluation.reference["quality.spread_within_category"] == pytest.approx(1.0, abs=0.05)
    assert [picture.name for picture in pictures] == ["samples.png"]
    assert pictures[0].png.startswith(PNG)


def test_a_sampler_that_ignores_its_code_is_as_good_but_not_informative(mixture_model):
    found = evaluate(mixture_model(False), Options(samples=3_000), None, silent).evaluation.measures
    assert found["modes.modes"] == 25
    assert found["quality.spread"] == pytest.approx(1.0, abs=0.03)
    assert found["modes.code_mode_purity"] < 0.15
    assert found["codes.recovery"] == pytest.approx(1 / 25, abs=0.02)
    assert found["codes.information"] < 0
    assert found["quality.spread_within_category"] > 20


def test_what_is_measured_is_the_averaged_generator_where_there_is_one(mixture_model):
    model, deaf = mixture_model(True), mixture_model(False).networks.generator
    model.networks.generator, model.networks.averaged_generator = deaf, model.networks.generator
    found = evaluate(model, Options(samples=500), None, silent).evaluation.measures
    for name in ("modes.code_mode_purity", "codes.recovery"):
        assert found[name] == pytest.approx(1.0, abs=1e-6), name
    assert found["quality.spread_within_category"] == pytest.approx(1.0, abs=0.15)


def test_the_same_model_and_options_give_the_same_evaluation_and_another_seed_another(mixture_model):
    model = mixture_model(True)
    first, second, other = (evaluate(model, Options(samples=500, seed=seed), None, silent) for seed in (4, 4, 5))
    assert first == second
    assert first.evaluation.measures["quality.spread"] != other.evaluation.measures["quality.spread"]


@pytest.fixture(scope="module")
def digits(mnist_directory: Path) -> ImageDataset:
    """The first 2,000 training and 600 test images of MNIST."""
    mnist = open_dataset("mnist", data_directory=mnist_directory)
    assert isinstance(mnist, ImageDataset)
    training, test = (
        LabelledPixels(split.pixels[:count], split.labels[:count])
        for split, count in ((mnist.training, 2_000), (mnist.test, 600))
    )
    return replace(mnist, training=training, test=test)


@pytest.fixture(scope="module")
def classifier(digits: ImageDataset) -> IndependentClassifier:
    return train_classifier(digits, recipe=ClassifierRecipe(iterations=60, batch_size=64))


@pytest.fixture(scope="module")
def digit_model(digits: ImageDataset) -> Callable[..., TrainedModel]:
    settings = preset_configuration("mnist", "quick", noise=2, batch_size=16, averaging=0.0)
    images = digits.frame.samples(digits.training.pixels)
    of_label = [images[digits.training.labels == label] for label in range(10)]
    least = min(map(len, of_label))
    table = torch.stack([each[:least] for each in of_label])

    def make(heeds: bool = True, symbols: list[int] | None = None, dataset: ImageDataset = digits) -> TrainedModel:
        torch.manual_seed(3)
        networks = make_networks(settings, digits.sample_shape)
        networks.generator = Samples(
            lambda label, noise: table[label, (uniform(noise[:, 0]) * least).long().clamp_max(least - 1)],
            settings.latent_space,
            heeds,
            symbols or list(range(10)),
        )
        model = model_of(settings, digits, networks)
        if not dataset.label_names:
            named = [NamedCategory(str(index), 0.0, 0.1, 1.0) for index in range(10)]
            model = replace(model, dataset=dataset, categories=named)
        return model

    return make


@pytest.fixture(scope="module")
def looked_up(digit_model, classifier) -> Evaluated:
    """The evaluation of a generator that gives real digits of the label asked for."""
    return evaluate(digit_model(), Options(samples=400), classifier, silent)


def test_real_digits_looked_up_by_label_score_like_real_data(looked_up):
    found, reference = looked_up.evaluation.measures, looked_up.evaluation.reference
    assert found["agreement.mean"] == pytest.approx(reference["agreement.mean"], abs=0.06)
    assert min(looked_up.evaluation.by_label.values()) == found["agreement.worst"]
    assert sum(map(sum, looked_up.evaluation.confusion)) == 400
    assert found["quality.frechet_distance"] < 3 * reference["quality.frechet_distance"]
    for name in ("quality.precision", "quality.recall", "quality.coverage"):
        assert found[name] == pytest.approx(reference[name], abs=0.08), name
        assert reference[name] > 0.8
    assert found["quality.spread"] == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_real_samples_and_their_labels_are_those_of_the_split_asked_for(digit_model, digits, classifier, split):
    """The splits differ: their labels are permuted, each in its own way."""
    held_out = digits.hold_out(400)
    apart = replace(
        held_out,
        test=held_out.test._replace(labels=(held_out.test.labels + 1) % 10),
        validation=held_out.validation._replace(labels=held_out.validation.labels // 2),
    )
    model = replace(digit_model(), dataset=apart)
    (real, label) = next(apart.batches(split, 1_000))
    evaluation = evaluate(model, Options(samples=200, split=split), classifier, silent).evaluation

    category = assigned_category(model.networks, real, 10)
    for name, value in cluster_agreement(category, label)._asdict().items():
        assert evaluation.measures[f"clustering.{name}"] == pytest.approx(value, abs=1e-9), name

    right = classifier.probabilities(real).argmax(dim=1) == label
    by_label = [float(right[label == each].double().mean()) for each in label.unique()]
    assert evaluation.reference["agreement.mean"] == pytest.approx(sum(by_label) / len(by_label), abs=1e-6)

    drawn = prepare(model, Options(samples=200, split=split), classifier)
    assert rows(drawn.real) <= rows(real)
    assert rows(drawn.training) <= rows(torch.cat([samples for samples, _ in apart.batches("training", 1_000)]))


def rows(samples: Tensor) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in samples}


@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        (lambda pixels: 255 - pixels, r"only \d+% of their pixels are darker than mid-grey"),
        (lambda pixels: torch.cat([pixels, pixels // 2, pixels], dim=1), "they are coloured"),
    ],
)
def test_styles_of_images_that_are_no_strokes_are_not_named_by_strokes(
    digit_model, digits, classifier, altered, reason
):
    """Dark digits on white, and coloured ones: what the codes do is measured, but not called slant."""
    pixels = altered(digits.test.pixels)
    frame = replace(digits.frame, channels=pixels.shape[1], background=int(pixels[0, 0, 0, 0]))
    dataset = replace(digits, frame=frame, test=digits.test._replace(pixels=pixels))
    dataset = replace(dataset, training=dataset.test)
    findings = Findings()
    images.styles(prepare(replace(digit_model(), dataset=dataset), Options(samples=200), classifier), findings)
    assert [style["name"] for style in findings.styles] == ["style 1", "style 2"]
    for style in findings.styles:
        assert (style["meaning"], style["correlation"], style["partial_correlation"]) == ("", {}, {})
        assert {"constancy", "variation_ratio"} < set(style)
    assert set(findings.measures) == {"style.constancy", "style.variation_ratio"}
    (note,) = findings.notes
    assert re.search(rf"slant, width, height and ink .* the real images are none, as {reason}\.$", note)


def test_styles_that_do_nothing_are_seen_to_do_nothing(looked_up):
    evaluation = looked_up.evaluation
    assert [style["name"] for style in evaluation.styles] == ["style 1", "style 2"]
    for style in evaluation.styles:
        assert style["meaning"] == ""
        assert style["constancy"] == 1.0
        assert style["variation_ratio"] == 0.0
        assert max(map(abs, style["partial_correlation"].values())) < 0.25
    assert evaluation.measures["style.constancy"] == 1.0
    largest = max(abs(style["partial_correlation"]["slant"]) for style in evaluation.styles)
    assert evaluation.measures["style.slant"] == largest


def test_a_generator_that_takes_labels_for_others_or_for_none_agrees_as_little(digit_model, classifier):
    swapped = evaluate(digit_model(symbols=[1, 0, *range(2, 10)]), Options(samples=300), classifier, silent).evaluation
    assert swapped.by_label["0"] < 0.1
    assert swapped.by_label["1"] < 0.1
    assert swapped.measures["agreement.worst"] < 0.1
    assert swapped.measures["agreement.mean"] == pytest.approx(0.8, abs=0.12)
    assert swapped.categories[0]["agreement"] == swapped.by_label["0"]
    deaf = evaluate(digit_model(heeds=False), Options(samples=1_000), classifier, silent).evaluation
    assert deaf.measures["agreement.mean"] == pytest.approx(0.1, abs=0.05)


def test_every_measure_that_applies_to_images_is_there_with_its_pictures(looked_up):
    for_images = {each.name for each in MEASURES if each.group != "modes"} - {"quality.inception_distance"}
    assert set(looked_up.evaluation.measures) == for_images
    assert looked_up.evaluation.notes == []
    names = ["samples", "confusion", "styles", "style-1", "style-2", "noise-1"]
    assert [picture.name for picture in looked_up.pictures] == [f"{name}.png" for name in names]
    assert all(picture.png.startswith(PNG) for picture in looked_up.pictures)
    assert {"label", "label_share", "share", "recovery", "agreement"} == set(looked_up.evaluation.categories[3])


def test_images_without_labels_have_what_needs_none_and_say_so(digit_model, digits):
    unlabelled = replace(
        digits,
        label_names=(),
        training=digits.training._replace(labels=None),
        test=digits.test._replace(labels=None),
    )
    evaluation = evaluate(digit_model(dataset=unlabelled), Options(samples=200), None, silent).evaluation
    groups = {name.split(".")[0] for name in evaluation.measures}
    assert groups == {"codes", "plan", "quality", "style"}
    assert {name for name in evaluation.measures if name.startswith("quality")} == {
        "quality.spread",
        "quality.spread_within_category",
    }
    assert any("no labels" in note for note in evaluation.notes)
    assert "agreement" not in evaluation.categories[0]
    assert "NaN" not in json.dumps(evaluation.measures)


def test_a_baseline_is_kept_beside_the_run(digit_model, classifier, looked_up):
    other = evaluate(digit_model(heeds=False), Options(samples=400), classifier, silent).evaluation
    beside = evaluate(digit_model(), Options(samples=400), classifier, silent, baseline=other)
    assert beside.evaluation.baseline["measures"] == other.measures
    assert beside.evaluation.measures == looked_up.evaluation.measures
    (heatmap,) = (picture.png for picture in beside.pictures if picture.name == "styles.png")
    (alone,) = (picture.png for picture in looked_up.pictures if picture.name == "styles.png")
    width = partial(int.from_bytes, byteorder="big")
    assert width(heatmap[16:20]) > 1.5 * width(alone[16:20])
