"""The models that are served, each under its name; they may change while calls are under way."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import StartupError, UnknownModelError, listed, quoted
from ..limits import MESSAGE_BYTES
from .served_model import ServedModel


@dataclass
class _Held:
    """A model, and the calls that use it."""

    model: ServedModel
    calls: int = 0
    replaced: bool = False

    def close_if_unused(self) -> None:
        if self.replaced and not self.calls:
            # Its threads may have a run to finish, which the event loop does not wait for.
            threading.Thread(target=self.model.close).start()


class Registry:
    """Models by name; the first is the default. For one thread: that of the event loop.

    Args:
        models: At least one, each under a name of its own.

    Raises:
        StartupError: If two have one name, or the descriptions of all exceed one message.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._held: dict[str, _Held] = {}
        self.swap(models)

    def get(self, name: str) -> ServedModel:
        """The model of this name; the default where it is empty.

        Raises:
            UnknownModelError: If no model of this name is served.
        """
        return self._find(name).model

    @contextmanager
    def using(self, name: str) -> Iterator[ServedModel]:
        """The model of this name, which stays open until the block ends, though another may take its name meanwhile.

        Raises:
            UnknownModelError: If no model of this name is served.
        """
        held = self._find(name)
        held.calls += 1
        try:
            yield held.model
        finally:
            held.calls -= 1
            held.close_if_unused()

    def all(self) -> list[ServedModel]:
        """Every model, the default first."""
        return [held.model for held in self._held.values()]

    def swap(self, models: Sequence[ServedModel]) -> None:
        """Serves these from now on, the first as the default; those left out are closed as soon as no call uses them.

        Raises:
            StartupError: If two have one name, as models or as encoders, or the descriptions of all exceed one message.
                Nothing changes.
        """
        names = [model.name for model in models]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise StartupError(f"two models are named {twice[0]}: name one otherwise with --model NAME=PATH")
        encoders = {model.encoder_name: model.name for model in models if model.encoder is not None}
        if taken := [name for name in names if name in encoders]:
            raise StartupError(
                f"{taken[0]} is what the Open Inference Protocol calls the encoder of {encoders[taken[0]]}: "
                "name either model otherwise with --model NAME=PATH"
            )
        # ListModels states them all; a tag and a length come before each.
        if sum(model.message().ByteSize() + 8 for model in models) > MESSAGE_BYTES:
            raise StartupError(f"the descriptions of {len(models)} models exceed 4 MiB in all: serve fewer")
        before = self._held
        self._held = {}
        for model in models:
            held = before.get(model.name)
            self._held[model.name] = held if held is not None and held.model is model else _Held(model)
        for name, held in before.items():
            if self._held.get(name) is not held:
                held.replaced = True
                held.close_if_unused()

    def _find(self, name: str) -> _Held:
        held = self._held.get(name) if name else next(iter(self._held.values()))
        if held is None:
            raise UnknownModelError(
                f"no model is named {quoted(name)}: those served are {listed(list(self._held))}",
                metadata={"model": quoted(name)},
            )
        return held
