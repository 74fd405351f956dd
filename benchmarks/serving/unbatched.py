"""infosink-serve with one row a run, to measure batching against; who serves has no use for such an option."""

from __future__ import annotations

from infosink.serving.command import main
from infosink.serving.runtime import batching

if __name__ == "__main__":
    assert batching.BATCH_SAMPLES > 1
    batching.BATCH_SAMPLES = 1
    main()
