"""Models loaded again while others are served: when asked to, or when a file has changed."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from ..errors import StartupError
from ..runtime.session import Device
from .model_file import read_model_file
from .model_sources import ModelSource
from .registry import Registry
from .served_model import ServedModel
from .validate import validate

Load = Callable[[ModelSource, str | None], ServedModel]
"""Loads a source's model, to be served by a name; by its own where None."""
_ATTEMPTS = 2

_logger = logging.getLogger(__name__)


class Settling:
    """Tells that what is looked at again and again has changed, once it has come to rest.

    Args:
        known: What it was at first.
    """

    def __init__(self, known: object) -> None:
        self._known = self._before = known

    def has_changed(self, seen: object) -> bool:
        """Whether it is as it was at the last look, but not as it was when this was last true."""
        settled = seen == self._before and seen != self._known
        self._before = seen
        if settled:
            self._known = seen
        return settled


class Reloader:
    """Keeps a registry in step with the files.

    A model is served anew once it has been checked in another process, loaded and checked here. One that cannot be
    served leaves the old one serving. A model found in a folder goes when its file does, the default model never. A
    model keeps the name that it was first served by.

    Args:
        registry: The models served.
        served: What the registry was loaded from, and the name of each model.
        find: Where the models are, now.
        load: How to load one.
        device: Where the models run.
        changed: Called after each change of the registry.
        counted: Called after each attempt to serve a model anew, with the model's name and whether it is.
    """

    def __init__(
        self,
        registry: Registry,
        served: Mapping[ModelSource, str],
        *,
        find: Callable[[], list[ModelSource]],
        load: Load,
        device: Device,
        changed: Callable[[], None],
        counted: Callable[[str, bool], None],
    ) -> None:
        self._registry = registry
        self._names = {source.key: name for source, name in served.items()}
        self._files = Settling(list(served))
        self._find = find
        self._load = load
        self._device = device
        self._changed = changed
        self._counted = counted
        self._asked = asyncio.Event()

    def request(self) -> None:
        """Has all models looked at again, after the reload under way; however often, that is one reload."""
        self._asked.set()

    async def run(self, watch: float | None) -> None:
        """Reloads whenever asked to, until cancelled.

        Args:
            watch: Seconds between looks for changed files; None where nobody looks.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heed())
            if watch is not None:
                tasks.create_task(self._watch(watch))

    async def _heed(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._reload()
            except Exception:
                _logger.exception("the reload failed; the models stay as they are")

    async def _watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                # What is still being written changes from look to look.
                if self._files.has_changed(await asyncio.to_thread(self._look)):
                    self.request()
            except Exception:
                _logger.exception("the files could not be looked at; the models stay as they are")

    def _look(self) -> list[ModelSource] | str:
        try:
            return self._find()
        except StartupError as error:
            return str(error)

    async def _reload(self) -> None:
        try:
            sources = await asyncio.to_thread(self._find)
        except StartupError as error:
            _logger.error("the models stay as they are: %s", error)  # noqa: TRY400  (the reason says it all)
            self._counted("", False)
            return
        if vanished := [source for source in sources if source.key not in self._names and not source.exists()]:
            # A folder that has gone is taken for a file that is not there.
            _logger.error("the models stay as they are: %s has gone", vanished[0].generator)
            self._counted("", False)
            return
        changes = [self._drop_absent(sources), *[await self._renew(source) for source in sources]]
        if not any(changes):
            _logger.info("no model has changed")

    def _drop_absent(self, sources: Sequence[ModelSource]) -> bool:
        """Serves no longer what is found no longer; returns whether there was any."""
        default = self._registry.get("").name
        absent = self._names.keys() - {source.key for source in sources}
        for key in absent:
            if self._names[key] == default:
                _logger.warning("%s stays, as the default model, though %s has gone", default, key[1])
        gone = {self._names.pop(key) for key in absent if self._names[key] != default}
        if gone:
            self._swap([model for model in self._registry.all() if model.name not in gone])
            _logger.info("no longer served: %s", ", ".join(sorted(gone)))
        return bool(absent)

    async def _renew(self, source: ModelSource) -> bool:
        """Serves a source's model anew where its content has changed; returns whether it has."""
        name = self._names.get(source.key)
        served = self._registry.get(name) if name else None
        try:
            model = await self._changed_model(source, served)
            if model is None:
                return False
            self._put(source, model, served)
        except StartupError as error:
            standing = f"{name} stays as it is" if name else f"{source.name or source.generator} is not served"
            _logger.error("%s: %s", standing, error)  # noqa: TRY400  (the reason says it all)
            self._counted(name or "", False)
            return True
        before = f", no longer of {served.checkpoint_sha256[:12]}" if served else ""
        _logger.info("%s is now served of the checkpoint %s%s", model.name, model.checkpoint_sha256[:12], before)
        self._counted(model.name, True)
        return True

    async def _changed_model(self, source: ModelSource, served: ServedModel | None) -> ServedModel | None:
        """A source's model, checked and loaded; None where it is what is served."""
        if served and served.encoder and not source.encoder:
            raise StartupError(
                f"{source.generator} has lost its encoder: put it back, or start again to serve without inferring codes"
            )
        for _ in range(_ATTEMPTS):
            if served and await asyncio.to_thread(_file_sha256, source) == served.file_sha256:
                return None
            checked = await validate(source.generator, source.encoder, self._device)
            model = await asyncio.to_thread(self._load, source, served.name if served else source.name)
            if model.file_sha256 == checked:
                return model
            model.close()
        raise StartupError(
            f"{source.generator} or its encoder changed while it was loaded: write a file under another name, and "
            "rename it when it is whole"
        )

    def _put(self, source: ModelSource, model: ServedModel, before: ServedModel | None) -> None:
        """Serves a model in place of the one before, or beside the others."""
        models = self._registry.all()
        try:
            self._swap([model if one is before else one for one in models] if before else [*models, model])
        except StartupError:
            model.close()
            raise
        self._names[source.key] = model.name

    def _swap(self, models: Sequence[ServedModel]) -> None:
        self._registry.swap(models)
        self._changed()


def _file_sha256(source: ModelSource) -> tuple[str, ...]:
    files: list[Path] = [path for path in (source.generator, source.encoder) if path]
    return tuple(sha256(read_model_file(path)).hexdigest() for path in files)
