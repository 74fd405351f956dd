"""The export of a trained model: gen.onnx and q.onnx, made, checked and put in place together."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from infosink.training.code_distribution import make_code_distribution
from infosink.training.trained_model import TrainedModel
from infosink.v1.model_pb2 import LatentSpace
from onnx import ModelProto, helper

from .card import Origin, model_card
from .content_digest import serialised
from .contents import check_contents
from .errors import ExportError
from .graphs import encoder_graph, generator_graph
from .meanings import Meanings, plain_meanings
from .metadata import Role, check_labels, check_licence, check_name, latent_space_message, metadata
from .parity import Parity, measure_parity
from .quantisation import Precision, quantise_both
from .replacement import replace_files
from .rounding import RoundingLoss, measure_graphs, measure_rounding
from .weights import Weights, rounded_networks, store_weights

GENERATOR_FILE = "gen.onnx"
ENCODER_FILE = "q.onnx"


@dataclass(frozen=True)
class ExportedModel:
    """The files of an export.

    Attributes:
        generator_path: gen.onnx.
        encoder_path: q.onnx.
        latent_space: as both describe it.
        parity: how far both are from PyTorch.
        rounding: what narrow weights or computing cost; None where both are float32.
    """

    generator_path: Path
    encoder_path: Path
    latent_space: LatentSpace
    parity: Parity
    rounding: RoundingLoss | None


def check_request(directory: Path, *, name: str, licence: str) -> None:
    """Refuses what export_model would refuse before it starts; makes nothing.

    Raises:
        ExportError: a name or licence cannot be used, or the directory cannot be written to.
    """
    check_name(name)
    check_licence(licence)
    try:
        # Of a link that leads nowhere too, it is the link that counts.
        nearest = next(each for each in (directory, *directory.absolute().parents) if os.path.lexists(each))
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _unwritable(directory, error) from error
    for file in (GENERATOR_FILE, ENCODER_FILE):
        if (directory / file).is_dir():
            raise ExportError(f"{directory / file} is a folder: move it away, or name another folder with --output")


def export_model(
    model: TrainedModel,
    directory: Path,
    *,
    name: str | None = None,
    licence: str = "",
    meanings: Meanings | None = None,
    origin: Origin | None = None,
    notes: str = "",
    weights: Weights = "float32",
    precision: Precision = "float32",
    report: Callable[[str], None] = lambda _: None,
) -> ExportedModel:
    """Writes gen.onnx and q.onnx, after a comparison with PyTorch that both must pass.

    Where weights are stored narrow, the files are compared with PyTorch's networks of the same rounded weights, and
    what the rounding costs is measured apart. Where large layers compute in int8, the graphs that they are made of are
    compared so, and what is written gives a row the same bytes at every batch size.

    Files of an earlier export in that directory stay until both new ones are written out; then q.onnx is replaced,
    then gen.onnx, each by a rename. What stops it between the two leaves a new q.onnx beside an old gen.onnx; if they
    come from different checkpoints, the server refuses the pair.

    Args:
        model: see load_trained_model.
        directory: where to write; made if missing.
        name: what a server calls the model by default; the data set's name unless given.
        licence: of the weights, as an SPDX identifier; empty for none stated.
        meanings: of the codes, where they were measured, see read_meanings.
        origin: of the model, for its card, see read_origin.
        notes: of the author, for the card, see read_notes.
        weights: how the files store them.
        precision: what large layers compute in.
        report: told of each stage as it begins.

    Raises:
        ExportError: a name, licence or label cannot be used, a weight cannot be stored so, a file cannot be written,
            or the graphs do not pass.
    """
    name = model.dataset.name if name is None else name
    check_request(directory, name=name, licence=licence)
    check_labels(model.categories)
    meanings = plain_meanings(model) if meanings is None else meanings
    latent_space = latent_space_message(model, meanings)
    sample_shape = model.dataset.sample_shape
    report("tracing the networks")
    compared = (
        generator_graph(model.networks, model.configuration.latent_space, sample_shape),
        encoder_graph(model.networks, make_code_distribution(model.configuration), sample_shape),
    )
    written = compared
    if precision == "int8":
        report("measuring the ranges of activations")
        written = copy.deepcopy(compared)
        quantise_both(model, *written)
        for graph in written:
            store_weights(graph, weights)
    for graph in compared:
        store_weights(graph, weights)
    report("comparing with PyTorch")
    rounded = rounded_networks(model.networks, weights)
    parity = measure_parity(replace(model, networks=rounded), *compared)
    rounding = None
    if precision != "float32":
        rounding = measure_graphs(model, *written, weights, precision)
    elif weights != "float32":
        rounding = measure_rounding(model, rounded, weights)
    found = parity.to_mapping() | ({"rounding": rounding.to_mapping()} if rounding else {})
    card = model_card(
        model, latent_space, name=name, licence=licence, rounding=rounding, evaluation=meanings.evaluation,
        origin=origin, notes=notes,
    )  # fmt: skip
    generator, encoder = written
    graphs: dict[Role, ModelProto] = {"generator": generator, "encoder": encoder}
    contents: dict[Role, bytes] = {}
    for role, graph in graphs.items():
        properties = metadata(
            model, latent_space, role, name=name, licence=licence, parity_json=json.dumps(found), weights=weights,
            precision=precision, card=card,
        )  # fmt: skip
        helper.set_model_props(graph, properties)
        contents[role] = serialised(graph)
        check_contents(graph, directory)
    report(f"writing {ENCODER_FILE} and {GENERATOR_FILE}")
    files = {ENCODER_FILE: contents["encoder"], GENERATOR_FILE: contents["generator"]}
    try:
        replace_files(directory, files)
    except OSError as error:
        raise _unwritable(directory, error) from error
    return ExportedModel(directory / GENERATOR_FILE, directory / ENCODER_FILE, latent_space, parity, rounding)


def _unwritable(directory: Path, error: OSError) -> ExportError:
    return ExportError(f"cannot write to {directory}: {error.strerror}; name another folder with --output")
