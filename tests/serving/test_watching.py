"""To watch the files goes on whatever goes wrong with one look, and so does what is asked for by HUP."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from infosink.serving.models.model_sources import ModelSource, find_models
from infosink.serving.models.registry import Registry
from infosink.serving.models.reload import Reloader

LIMIT = 60
FAILED = "the files could not be looked at; the models stay as they are"


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("can't start new thread")])
def test_a_look_that_fails_is_said_and_not_the_last(
    load_file: Callable, schema_1: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO)
    sources = find_models([(None, schema_1 / "gen.onnx")])
    registry = Registry([load_file(schema_1 / "gen.onnx")])
    found: list[list[ModelSource] | Exception] = [error]

    def find() -> list[ModelSource]:
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    async def watch() -> None:
        reloader = Reloader(
            registry,
            dict.fromkeys(sources, "tiny-images"),
            find=find,
            load=lambda source, name: load_file(source.generator, name=name),
            device="cpu",
            changed=lambda: None,
            counted=lambda _model, _served: None,
        )
        running = asyncio.create_task(reloader.run(0.01))

        async def said(words: str, times: int) -> None:
            while sum(words in message for message in caplog.messages) < times:
                assert not running.done()
                await asyncio.sleep(0.01)

        async with asyncio.timeout(LIMIT):
            await said(FAILED, 2)
            found[0] = sources
            reloader.request()
            await said("no model has changed", 1)
            # The file is there twice now, which is seen without being asked for.
            found[0] = [*sources, *sources]
            await said("no model has changed", 2)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    try:
        asyncio.run(watch())
    finally:
        for model in registry.all():
            model.close()
    assert str(error) in caplog.text
