"""What the command line decides."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve which models. Times are in seconds, sizes in bytes; the defaults are the command's."""

    models: tuple[tuple[str | None, Path], ...] = ()
    """The generators' files, or folders of them, each with the name to serve it by, or None for its own."""
    encoder: Path | None = None
    """The encoder of the only model; found beside each generator where None."""
    host: str = "127.0.0.1"
    port: int = 50051
    """0 picks a free one."""
    health_port: int | None = None
    """Where health alone is answered, in the clear; nowhere else than on `port` where None, 0 picks a free one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """The threads that share one run on the CPU; one for each core where None."""
    cuda_graphs: bool = False
    """Whether to replay CUDA graphs."""

    stream_samples: int = 1_000_000
    """The limit of one StreamSamples call."""
    queue_rows: int = 4096
    """The rows of Sample and InferCodes calls that may wait or be computed at once."""
    queue_bytes: int = 256 * 2**20
    """The memory that those calls may take at once."""
    batch_delay: float = 0.0
    """How long rows wait for others to be run with while nothing runs, 0 to 0.01."""

    lame_duck: float = 0.0
    """Between NOT_SERVING and the end of acceptance."""
    grace: float = 30.0
    """What calls under way may take to end after that."""
    watch: float | None = None
    """Between two looks for changed model files; nobody looks where None."""

    tls_certificate: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    """Clients must show a certificate of this authority, where there is one."""
    token_file: Path | None = None
    """Clients must show one of the tokens in this file, where there is one."""

    metrics_port: int | None = None
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
