"""A model's files, loaded and checked in a process of its own before the serving one touches them.

Building a session holds the interpreter, and a file that is not what it seems may exhaust or crash whoever loads it.

usage: python -m infosink.serving.models.validate DEVICE GENERATOR [ENCODER]

writes JSON: {"sha256": [...]}, the digests of the files that were checked, or {"flaw": "..."}.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import cast

from ..errors import StartupError
from ..runtime.session import Device
from .served_model import load_model

SECONDS = 300
"""After which a model that is still being checked is refused."""
_NICENESS = 10


async def validate(generator: Path, encoder: Path | None, device: Device) -> tuple[str, ...]:
    """Checks a model's files in another process, which is ended where this is cancelled.

    Returns:
        The SHA-256 of the generator, and of the encoder where there is one, as they were checked.

    Raises:
        StartupError: If the model cannot be served, or the process ended without a verdict.
    """
    files = [os.fspath(path) for path in (generator, encoder) if path]
    try:
        process = await asyncio.create_subprocess_exec(
            # -P: nothing in the folder that the server was started in is imported.
            *[sys.executable, "-P", "-m", __name__, device, *files],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise StartupError(f"{generator} cannot be checked: no process can be started: {error.strerror}") from None
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        verdict = json.loads(said)
    except ValueError:
        raise StartupError(f"{generator} cannot be served: its check {_end(process.returncode)}") from None
    if "flaw" in verdict:
        raise StartupError(verdict["flaw"])
    return tuple(verdict["sha256"])


def _end(code: int | None) -> str:
    if code == -signal.SIGALRM:
        return f"took more than {SECONDS} seconds"
    return f"ended with {signal.Signals(-code).name if code and code < 0 else code}"


def main() -> None:
    """Checks the files that the arguments name."""
    # By the system: a check ends though its server has gone, or onnxruntime never returns.
    signal.alarm(SECONDS)
    # Ctrl-C reaches the whole group; the server ends its checks itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Requests come first.
    os.nice(_NICENESS)
    device, generator, *encoder = sys.argv[1:]
    json.dump(_verdict(cast(Device, device), Path(generator), Path(encoder[0]) if encoder else None), sys.stdout)


def _verdict(device: Device, generator: Path, encoder: Path | None) -> dict[str, object]:
    try:
        model = load_model(generator, name=None, encoder_path=encoder, device=device, threads=1, stream_samples=1)
    except StartupError as error:
        return {"flaw": str(error)}
    return {"sha256": model.file_sha256}


if __name__ == "__main__":
    main()
