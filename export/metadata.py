"""What a model file says of itself: strings in its `metadata_props`, each prefixed `infosink.`.

One more, `content_sha256`, comes last, see content_digest. Readers ignore fields that they do not know: an optional one
may be added without another schema version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Literal

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from infosink.training.datasets import Dataset
from infosink.training.labelling import NamedCategory
from infosink.training.trained_model import TrainedModel
from infosink.v1.model_pb2 import Category, ImageSpace, LatentSpace, PointSpace, SampleSpace

from .errors import ExportError
from .meanings import Meanings
from .quantisation import Precision
from .weights import Weights

SCHEMA_VERSION = "1"
Role = Literal["generator", "encoder"]

UNSTATED_LICENCE = "LicenseRef-Unstated"
"""Of weights whose licence nobody stated, in the notation of SPDX for what is not on its list."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_LABEL = 128  # bytes
_LONGEST_LICENCE = 256  # characters


def check_name(name: str) -> None:
    """Refuses a name that no server would take.

    Raises:
        ExportError: it is not 1 to 64 letters, digits, dots, hyphens and underscores.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"the name {name!r} cannot be served: give --name 1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first"
        )


def check_licence(licence: str) -> None:
    """Refuses a licence that is not a line of text.

    Raises:
        ExportError: it is blank, too long, or has line breaks or control characters. Empty means unstated.
    """
    if licence and not (licence.strip() and licence.isprintable() and len(licence) <= _LONGEST_LICENCE):
        raise ExportError(
            f"the licence {licence[:40]!r} is not one line of 1 to {_LONGEST_LICENCE} characters: "
            "give --licence an SPDX identifier, or leave it out"
        )


def check_labels(categories: Iterable[NamedCategory]) -> None:
    """Refuses labels that no server would take; a category may have none, an empty one.

    Raises:
        ExportError: one is longer than 128 bytes or, read from a file system, no UTF-8.
    """
    for label in (category.label for category in categories):
        try:
            size = len(label.encode())
        except UnicodeEncodeError as error:
            raise ExportError(f"the label {label!r} is not UTF-8: rename it in the data, then export again") from error
        if size > _LONGEST_LABEL:
            raise ExportError(
                f"the label {label[:40]!r}... takes {size} bytes and a server takes {_LONGEST_LABEL}: "
                "shorten it in the data, then export again"
            )


def latent_space_message(model: TrainedModel, meanings: Meanings) -> LatentSpace:
    """The latent space of a model, with what its codes mean."""
    return LatentSpace(
        categories=[
            Category(
                label=category.label,
                label_share=category.label_share,
                sample_share=category.sample_share,
                recovery=category.recovery,
                agreement=agreement,
            )
            for category, agreement in zip(model.categories, meanings.agreement, strict=True)
        ],
        styles=meanings.styles,
        noise_dimensions=model.configuration.noise,
    )


def metadata(
    model: TrainedModel,
    latent_space: LatentSpace,
    role: Role,
    *,
    name: str,
    licence: str,
    parity_json: str,
    weights: Weights = "float32",
    precision: Precision = "float32",
    card: str = "",
) -> dict[str, str]:
    """The metadata of one file.

    Args:
        model: that the file was made from.
        latent_space: see latent_space_message.
        role: which of its two files this is.
        name: what a server calls the model by default.
        licence: of the weights; empty for none stated.
        parity_json: the differences from PyTorch that were found.
        weights: how the file stores them.
        precision: what its large layers compute in.
        card: see card.model_card; only a generator's file has one.
    """
    values = {
        "schema_version": SCHEMA_VERSION,
        "role": role,
        "name": name,
        "data_set": model.dataset.name,
        "latent_space": _json(latent_space),
        "sample_space": _json(_sample_space(model.dataset)),
        "checkpoint_sha256": model.checkpoint_sha256,
        "config": model.configuration.to_json(),
        "parity": parity_json,
        "licence": licence or UNSTATED_LICENCE,
        "weights": weights,
        "precision": precision,
    }
    if card and role == "generator":
        values["card"] = card
    return {f"infosink.{key}": value for key, value in sorted(values.items())}


def _sample_space(dataset: Dataset) -> SampleSpace:
    frame = dataset.frame
    if frame is None:
        return SampleSpace(point=PointSpace(dimensions=dataset.sample_shape[0]))
    return SampleSpace(
        image=ImageSpace(
            channels=frame.channels,
            height=frame.height,
            width=frame.width,
            padding_top=frame.padding_top,
            padding_left=frame.padding_left,
            padding_bottom=frame.padding_bottom,
            padding_right=frame.padding_right,
            background=frame.background,
            minimum=-1,
            maximum=1,
        )
    )


def _json(message: Message) -> str:
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True), sort_keys=True, separators=(",", ":"))
