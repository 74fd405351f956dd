"""The model card: what a model is, where it comes from and what it must not be trusted for (Mitchell et al. 2019).

It is Markdown and travels in gen.onnx. What comes from files is escaped, so that it reads as it was written and cannot
pass for the card's own words; only its author's notes are Markdown themselves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from infosink.training.configuration import ConfigurationError, preset_configuration
from infosink.training.evaluation.measures import DIRECTION_SIGNS, present
from infosink.training.evaluation.provenance import judge_in_words
from infosink.training.evaluation.record import Evaluation
from infosink.training.labelling import unreachable_labels
from infosink.training.progress import duration
from infosink.training.run_directory import RunDirectory, RunDirectoryError
from infosink.training.trained_model import TrainedModel
from infosink.v1.model_pb2 import LatentSpace

from .errors import ExportError
from .metadata import UNSTATED_LICENCE
from .rounding import RoundingLoss

_LARGEST_CARD = 2**18  # bytes, as a server takes them
_LARGEST_NOTES = 2**16  # bytes
_ROWS = 100
_ABSENT = "–"
_METHOD = {
    True: "an informative Sinkhorn GAN (Bréchet, Wu, Möllenhoff and Cremers 2019)",
    False: "a Sinkhorn GAN without the information term of Bréchet, Wu, Möllenhoff and Cremers 2019 (λ = 0)",
}
"""By whether the information term has weight."""
_ACTIVE = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown may take for its own inside a line; not an underscore within a word."""
_ORDINARY = re.compile(r"\w+")


class Origin(NamedTuple):
    """What only the run directory knows of a model."""

    environment: Mapping[str, str]  # the versions and the machine that it was trained on, by name
    seconds: float | None  # that training took; None where it is not known


def read_origin(run: RunDirectory, iteration: int) -> Origin:
    """Reads what a run directory knows of its training up to an iteration; what it does not say is left out.

    Args:
        run: of which config.json was read before.
        iteration: of the checkpoint.
    """
    environment = json.loads((run.path / "config.json").read_text(encoding="utf-8")).get("environment")
    named = environment.items() if isinstance(environment, dict) else ()
    known = {name: str(value) for name, value in named if isinstance(value, str | int)}
    try:
        times = [each.get("seconds") for each in run.read_metrics() if int(each["iteration"]) <= iteration]
    except RunDirectoryError:  # a log that is damaged hinders no export
        times = []
    measured = [time for time in times if isinstance(time, float) and math.isfinite(time)]
    return Origin(known, sum(measured) if measured and len(measured) == len(times) else None)


def read_notes(path: Path) -> str:
    """Reads the author's notes.

    Raises:
        ExportError: they cannot be read, are longer than 64 KiB, or are no text.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(_LARGEST_NOTES + 1)
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}; name a text file with --card-notes") from error
    if len(contents) > _LARGEST_NOTES:
        raise ExportError(f"{path} is longer than {_LARGEST_NOTES:,} bytes, the limit for notes: shorten it")
    try:
        text = contents.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ExportError(f"{path} is not UTF-8: write the notes as plain text or Markdown") from error
    if not all(character.isprintable() or character in "\n\t" for character in text):
        raise ExportError(f"{path} has control characters: write the notes as plain text or Markdown")
    return text.strip()


def model_card(
    model: TrainedModel,
    latent_space: LatentSpace,
    *,
    name: str,
    licence: str,
    rounding: RoundingLoss | None = None,
    evaluation: Evaluation | None = None,
    origin: Origin | None = None,
    notes: str = "",
) -> str:
    """The card of a model.

    Args:
        model: that is exported.
        latent_space: as its files describe it.
        name: what a server calls it by default.
        licence: of the weights; empty for none stated.
        rounding: what narrow weights or computing cost; None where both are float32.
        evaluation: of the very same checkpoint; None where there is none.
        origin: see read_origin; None where the model comes from no run.
        notes: of the author, in Markdown; see read_notes.

    Raises:
        ExportError: it is longer than a server takes, 256 KiB.
    """
    sections: dict[str, Iterable[str]] = {
        "": _summary(model, name),
        "Use": _use(model, latent_space),
        "Data": _data(model),
        "Training": _training(model, origin),
        "Evaluation": _evaluation(evaluation),
        "Categories": _categories(latent_space, labelled=bool(model.dataset.label_names)),
        "Styles": _styles(latent_space),
        "Weights": _weights(rounding),
        "Limits": _limits(model, evaluation),
        "Licence": [f"Of the weights: {_escaped(licence or UNSTATED_LICENCE)}. Of the software: Apache-2.0."],
        "Notes": [notes],
    }
    parts = [(title, "\n\n".join(filter(None, paragraphs))) for title, paragraphs in sections.items()]
    card = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in parts if text) + "\n"
    if (size := len(card.encode())) > _LARGEST_CARD:
        raise ExportError(
            f"the model card takes {size:,} bytes and a server takes {_LARGEST_CARD:,}: shorten the notes"
        )
    return card


def _summary(model: TrainedModel, name: str) -> Iterator[str]:
    settings, frame = model.configuration, model.dataset.frame
    if frame is None:
        kind = "points in the plane"
    else:
        kind = f"{frame.native_width}x{frame.native_height} {'grey' if frame.channels == 1 else 'colour'} images"
    yield f"# {_escaped(name)}"
    yield (
        f"A generator of {kind} like those of {_escaped(model.dataset.name)}, and the network Q, which reads codes "
        f"back from them: {settings.categories:,} categories and {settings.styles:,} continuous style codes, learned "
        f"without labels, beside {settings.noise:,} noise variables. It is {_METHOD[settings.lambda_ > 0]}, trained "
        "and exported by infosink."
    )
    yield f"Checkpoint SHA-256: `{model.checkpoint_sha256}`"


def _use(model: TrainedModel, latent_space: LatentSpace) -> Iterator[str]:
    # A label that a shell or Markdown might misread is asked for by its category.
    label = next((each.label for each in latent_space.categories if _ORDINARY.fullmatch(each.label)), "")
    chosen = f"--label {label}" if label and model.dataset.label_names else "--category 0"
    ending = "npz" if model.dataset.frame is None else "png"
    commands = ["infosink-serve --model gen.onnx", f"infosink sample {chosen} --count 16 --seed 1 -o samples.{ending}"]
    if latent_space.styles:
        commands.append(f"infosink traverse --style-index 1 --seed 1 -o style-1.{ending}")
    if model.dataset.frame is not None:
        commands.append("infosink infer PICTURE.png")
    yield "\n".join(f"    {command}" for command in commands)
    yield "The server finds q.onnx, which reads codes, beside gen.onnx."


def _data(model: TrainedModel) -> Iterator[str]:
    facts = model.dataset.describe()
    sizes = [f"{facts[key]:,} {key.split('_')[0]}" for key in facts if key.endswith("_samples")]
    digests = facts.get("sha256", {})
    told = {
        key: value for key, value in facts.items() if isinstance(value, str | float) and key not in {"name", "sha256"}
    }
    yield _list(
        [
            f"set: {_escaped(model.dataset.name)}",
            f"samples: {', '.join(sizes)}",
            *(f"{_escaped(key)}: {_escaped(str(value))}" for key, value in told.items()),
            *(
                f"SHA-256 of {_escaped(file)}: `{digest}`"
                for file, digest in (digests.items() if isinstance(digests, dict) else [("the data", digests)])
            ),
        ]
    )


def _training(model: TrainedModel, origin: Origin | None) -> Iterator[str]:
    settings = model.configuration
    lines = [
        f"preset: {_escaped(settings.preset)}",
        f"solver: {settings.solver}, ε = {settings.epsilon:g}, λ = {settings.lambda_:g}",
        f"iterations: {model.iteration:,} of {settings.iterations:,}, batches of {settings.batch_size:,}",
        f"seed: {settings.seed}",
    ]
    if origin:
        lines += [f"{_escaped(key)}: {_escaped(value)}" for key, value in origin.environment.items()]
    if origin and origin.seconds is not None:
        lines.append(f"time: {duration(origin.seconds)}")
    yield _list(lines)
    try:
        paper = preset_configuration(settings.dataset).to_mapping()
    except ConfigurationError:
        return
    here = settings.to_mapping()
    differing = [key for key in here if key not in {"preset", "seed"} and here[key] != paper[key]]
    if not differing:
        yield "All settings are those of the paper preset."
        return
    yield "Against the paper preset:"
    yield _table(["setting", "here", "paper preset"], ([key, str(here[key]), str(paper[key])] for key in differing))


def _evaluation(evaluation: Evaluation | None) -> Iterator[str]:
    if evaluation is None:
        yield "Not evaluated: `infosink-evaluate RUN` before exporting does it."
        return
    yield _escaped(
        f"By infosink-evaluate, over {evaluation.samples:,} generated samples and real ones of the {evaluation.split} "
        f"split, with its seed {evaluation.seed}.{judge_in_words(evaluation)}"
    )
    headline = [measure for measure in present(evaluation.measures) if measure.headline]
    yield _table(
        ["", "better", "this model", "real data in its place"],
        (
            [
                measure.title,
                DIRECTION_SIGNS[measure.better],
                measure.written(evaluation.measures[measure.name]),
                measure.written(evaluation.reference[measure.name])
                if measure.name in evaluation.reference
                else _ABSENT,
            ]
            for measure in headline
        ),
    )
    yield _list(_escaped(f"{measure.title}: {measure.definition}") for measure in headline)
    yield _list(map(_escaped, evaluation.notes))


def _categories(latent_space: LatentSpace, *, labelled: bool) -> Iterator[str]:
    categories = latent_space.categories
    yield _table(
        ["category", "label", "share of it with the label", "share of the data", "read back by Q", "agreement"],
        (
            [
                str(index),
                category.label or _ABSENT,
                f"{category.label_share:.1%}" if labelled else _ABSENT,
                f"{category.sample_share:.1%}",
                f"{category.recovery:.1%}",
                f"{category.agreement:.1%}" if category.HasField("agreement") else _ABSENT,
            ]
            for index, category in enumerate(categories[:_ROWS])
        ),
    )
    if (hidden := len(categories) - _ROWS) > 0:
        yield f"... and {hidden:,} more."
    yield (
        "The first two shares are of the training samples that Q assigns to the category, and of all; read back is how "
        "often Q finds the category again in samples of it; agreement is how often an independent classifier gives "
        "them the label."
    )


def _styles(latent_space: LatentSpace) -> Iterator[str]:
    if latent_space.styles:
        yield _table(
            ["style", "name", "measured meaning"],
            (
                [str(index), style.name, style.meaning or "none found"]
                for index, style in enumerate(latent_space.styles[:_ROWS], 1)
            ),
        )


def _weights(rounding: RoundingLoss | None) -> Iterator[str]:
    yield (
        "Stored as float32, as they were trained."
        if rounding is None
        else "".join(f"{line}." for line in rounding.lines())
    )


def _limits(model: TrainedModel, evaluation: Evaluation | None) -> Iterator[str]:
    measures = evaluation.measures if evaluation else {}
    named = "no label of the data: it bears its number"
    if model.dataset.label_names:
        named = "the majority label of the training samples that Q assigns to it, after training without labels"
    lines = [f"The name of a category is {named}. Samples of it may show something else{_how_often(measures)}."]
    if missing := unreachable_labels(model.categories, model.dataset):
        shown = ", ".join(map(_escaped, missing[:_ROWS]))
        lines.append(
            f"No category bears, so that nobody can ask for: {shown}{', ...' if len(missing) > _ROWS else ''}."
        )
    lines += [_variation(measures), "What a style does may differ from one category to another."]
    if frame := model.dataset.frame:
        lines.append(
            f"It makes and reads images of {frame.width}x{frame.height} pixels, with the data's own "
            f"{frame.native_width}x{frame.native_height} inside; other pictures must be brought to that."
        )
    lines += [
        "Q gives every input some category with some probability, also one unlike anything it was trained on. The "
        "probabilities were not calibrated.",
        "Samples may resemble training samples. Whether they give away any was not tested.",
        "It was made to study a method. Do not rely on it where a wrong sample or a wrong category does harm, nor for "
        "decisions about people.",
    ]
    yield _list(lines)


def _how_often(measures: Mapping[str, float]) -> str:
    shares = {"on average over labels": "agreement.mean", "of the worst label": "agreement.worst"}
    found = [f"{1 - measures[name]:.1%} {where}" for where, name in shares.items() if name in measures]
    if not found:
        return "; how often was not measured"
    return f": {' and '.join(found)} do, as an independent classifier sees it"


def _variation(measures: Mapping[str, float]) -> str:
    compared = {
        "over all samples": measures.get("quality.spread"),
        "within a category": measures.get("quality.spread_within_category"),
    }
    found = [f"{value:.2f} {where}" for where, value in compared.items() if value is not None]
    if not found:
        return "Samples may vary less or more than the data. By how much was not measured."
    return (
        "Samples may vary less or more than the data: the mean distance between two of them, over that between two "
        f"real ones, is {' and '.join(found)}."
    )


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *([_escaped(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """A line of text that Markdown leaves as it is."""
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return _ACTIVE.sub(r"\\\g<0>", printable)
