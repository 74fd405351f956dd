"""The state of training as tensors, and back: everything that the next iteration depends on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .algorithm import InformativeSinkhorn
from .configuration import Configuration, ConfigurationError
from .networks import Networks

_NETWORKS = "networks."
_RANDOM = "random"


class CheckpointMismatchError(Exception):
    """A checkpoint that belongs to another configuration or device; the message says which."""


def capture(algorithm: InformativeSinkhorn, random: torch.Generator) -> dict[str, Tensor]:
    """Weights, batch-norm statistics, optimiser moments and random state."""
    tensors = {_NETWORKS + name: tensor for name, tensor in algorithm.networks.state_dict().items()}
    for name, optimiser in algorithm.optimisers.items():
        for index, entry in optimiser.state_dict()["state"].items():
            tensors |= {f"{_moments(name)}{index}.{key}": tensor for key, tensor in entry.items()}
    tensors[_RANDOM] = random.get_state()
    return tensors


def restore(algorithm: InformativeSinkhorn, random: torch.Generator, tensors: dict[str, Tensor]) -> None:
    """The reverse of capture, into an algorithm of the same configuration.

    Raises:
        CheckpointMismatchError: a tensor is missing, unknown, or of another shape or type.
    """
    restore_networks(algorithm.networks, tensors)
    known = {name for name in tensors if name.startswith(_NETWORKS)} | {_RANDOM}
    for name, optimiser in algorithm.optimisers.items():
        prefix = _moments(name)
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            shapes = {"step": torch.Size([]), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
            for key, shape in shapes.items():
                full_name = f"{prefix}{index}.{key}"
                # The fused kernel trusts these shapes: a wrong one would read foreign memory.
                if full_name not in tensors or tensors[full_name].shape != shape:
                    raise CheckpointMismatchError(f"{full_name} is missing or of another shape")
                state.setdefault(index, {})[key] = tensors[full_name]
                known.add(full_name)
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    if unknown := sorted(set(tensors) - known):
        raise CheckpointMismatchError(f"{unknown[0]} belongs to no optimiser of this configuration")
    try:
        random.set_state(tensors[_RANDOM])
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointMismatchError("the random state is missing or of another device") from error


def restore_networks(networks: Networks, tensors: dict[str, Tensor]) -> None:
    """Loads the weights and statistics alone.

    Raises:
        CheckpointMismatchError: they do not fit.
    """
    own = {name.removeprefix(_NETWORKS): tensor for name, tensor in tensors.items() if name.startswith(_NETWORKS)}
    try:
        networks.load_state_dict(own)
    except RuntimeError as error:
        raise CheckpointMismatchError("its networks are not those of config.json") from error


def require_configuration(header: dict[str, Any], settings: Configuration) -> None:
    """Checks that a checkpoint was written under these settings, whatever the number of iterations.

    The settings are compared, not their text, so that a setting that came to be later, at its
    default, does not part a run from its checkpoint.

    Raises:
        CheckpointMismatchError: it was not; the message names what differs.
        KeyError: the header does not say.
    """
    try:
        written = Configuration.from_mapping(header["configuration"]).to_mapping()
    except (ConfigurationError, TypeError, AttributeError) as error:
        raise CheckpointMismatchError(f"its header holds no settings of a run: {error}") from error
    present = settings.to_mapping()
    differing = sorted(name for name in present if name != "iterations" and present[name] != written[name])
    if differing:
        raise CheckpointMismatchError(
            f"config.json is not what it was when the checkpoint was written: {', '.join(differing)} changed; "
            "put it back as it was"
        )


def _moments(optimiser: str) -> str:
    return f"optimisers.{optimiser}."
