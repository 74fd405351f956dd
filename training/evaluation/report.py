"""evaluation.md: what a researcher reads and pastes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .measures import DIRECTION_SIGNS, GROUPS, Measure, present
from .pictures import Picture
from .provenance import baseline_in_words, provenance
from .record import Evaluation

_ABSENT = "–"
_CATEGORIES = 100


def markdown(evaluation: Evaluation, name: str, pictures: list[Picture]) -> str:
    """The report: headline, every measure with its definition, labels, categories, styles, pictures.

    Args:
        evaluation: of a run.
        name: of the run.
        pictures: lying in the folder "evaluation" beside the report.
    """
    parts = [
        f"# Evaluation of {cell(name)}\n",
        provenance(evaluation) + "\n",
        *([baseline_in_words(evaluation) + "\n"] if evaluation.baseline else []),
        *_headline(evaluation),
        *(section for group, title in GROUPS.items() for section in _group(evaluation, group, title)),
        *_labels(evaluation),
        *_categories(evaluation),
        *_styles(evaluation),
    ]
    if evaluation.notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {cell(note)}" for note in evaluation.notes) + "\n")
    if pictures:
        parts.append("## Pictures\n")
        parts += [
            f"![{cell(picture.caption)}](evaluation/{picture.name})\n\n{picture.caption}\n" for picture in pictures
        ]
    return "\n".join(parts)


def columns(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """The values to show side by side, by the column's heading: this run, its baseline, real data."""
    shown = {"this run": evaluation.measures}
    if evaluation.baseline:
        shown[f"baseline, λ = {evaluation.baseline['run']['lambda']:g}"] = evaluation.baseline["measures"]
    if evaluation.reference:
        shown["real data in its place"] = evaluation.reference
    return shown


def headline_measures(evaluation: Evaluation) -> list[Measure]:
    """The few measures that say how good a model is."""
    return [measure for measure in present(evaluation.measures) if measure.headline]


def written(measure: Measure, values: dict[str, float]) -> str:
    """A measure's value for people, or a dash where there is none."""
    return measure.written(values[measure.name]) if measure.name in values else _ABSENT


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines) + "\n"


def cell(text: str) -> str:
    """Text from outside, a label or a path, that can break neither a table nor a line."""
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return printable.replace("|", "\\|").replace("<", "&lt;")


def _headline(evaluation: Evaluation) -> Iterator[str]:
    shown = columns(evaluation)
    yield "## Headline\n"
    yield table(
        ["", "better", *shown],
        (
            [measure.title, DIRECTION_SIGNS[measure.better], *(written(measure, values) for values in shown.values())]
            for measure in headline_measures(evaluation)
        ),
    )
    if evaluation.by_label:
        worst = min(evaluation.by_label, key=evaluation.by_label.__getitem__)
        yield f"The worst label is {cell(worst)}.\n"
    if evaluation.classifier and evaluation.reference:
        yield (
            "Real data in its place are training images, but for agreement, where they are the "
            f"{evaluation.split} split's own. The classifier learned from the training images too, and its features "
            "tell them from others: what is compared in these features has no neutral floor there.\n"
        )


def _group(evaluation: Evaluation, group: str, title: str) -> Iterator[str]:
    shown = columns(evaluation)
    measures = [measure for measure in present(evaluation.measures) if measure.group == group]
    if not measures:
        return
    told = {heading: values for heading, values in shown.items() if any(each.name in values for each in measures)}
    yield f"## {title}\n"
    yield table(
        ["", "better", *told, "definition"],
        (
            [
                measure.title,
                DIRECTION_SIGNS[measure.better],
                *(written(measure, values) for values in told.values()),
                measure.definition,
            ]
            for measure in measures
        ),
    )
    if counts := evaluation.counts.get(group):
        told_counts = (f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
        yield f"Counts: {', '.join(told_counts)}.\n"


def _labels(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.by_label:
        yield "## Agreement by label\n"
        yield table(["label", "agreement"], ([label, f"{share:.2%}"] for label, share in evaluation.by_label.items()))


def _categories(evaluation: Evaluation) -> Iterator[str]:
    yield "## Categories\n"
    labelled = any(category["label_share"] for category in evaluation.categories)
    heading = ["category", "label", "share of the training data", "share of it with the label", "recovery", "agreement"]
    rows = (
        [
            str(index),
            category["label"] or _ABSENT,
            f"{category['share']:.1%}",
            f"{category['label_share']:.1%}" if labelled else _ABSENT,
            f"{category['recovery']:.1%}",
            f"{category['agreement']:.2%}" if "agreement" in category else _ABSENT,
        ]
        for index, category in enumerate(evaluation.categories[:_CATEGORIES])
    )
    yield table(heading, rows)
    if len(evaluation.categories) > _CATEGORIES:
        yield f"The first {_CATEGORIES} of {len(evaluation.categories):,}; evaluation.json has all.\n"


def _styles(evaluation: Evaluation) -> Iterator[str]:
    panels: list[tuple[str, list[dict[str, Any]]]] = [("", evaluation.styles)]
    if evaluation.baseline:
        panels.append((f", baseline, λ = {evaluation.baseline['run']['lambda']:g}", evaluation.baseline["styles"]))
    for suffix, styles in panels:
        if styles:
            names = list(styles[0]["correlation"])
            yield f"## Style codes{suffix}\n"
            if names:
                yield (
                    "Spearman's rank correlation with each morphometric, and in brackets the partial one, "
                    "given the category and the other codes.\n"
                )
            yield table(
                ["code", "meaning", *names, "label constancy", "variation ratio"],
                (
                    [
                        str(index),
                        style["meaning"] or "none found",
                        *(
                            f"{style['correlation'][name]:.2f} ({style['partial_correlation'][name]:.2f})"
                            for name in names
                        ),
                        f"{style['constancy']:.2%}" if "constancy" in style else _ABSENT,
                        f"{style['variation_ratio']:.2f}" if "variation_ratio" in style else _ABSENT,
                    ]
                    for index, style in enumerate(styles, 1)
                ),
            )
