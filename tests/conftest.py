"""What the tests of several parts share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# Tests work on small batches, where one thread is as fast as several, and faster on a busy machine. Set before torch is
# imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache_directory() -> Iterator[Path]:
    """The cache of this process and of those it starts: $INFOSINK_CACHE, else .venv/data; never the user's own."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        directory = Path(os.environ.get("INFOSINK_CACHE") or REPOSITORY / ".venv" / "data").absolute()
        monkeypatch.setenv("INFOSINK_CACHE", str(directory))
        yield directory


@pytest.fixture(scope="session")
def mnist_directory(cache_directory: Path) -> Path:
    """A folder with the four original MNIST files, fetched on first use."""
    from infosink.training.datasets.mnist_files import MNIST, read_or_fetch

    read_or_fetch(MNIST.cache)
    return MNIST.cache
