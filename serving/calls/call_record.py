"""What is known of one call: the parts that answer it write it, metrics, the log and spans read it."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class CallRecord:
    """One call, as far as it has come. Times are in seconds; sums where a call takes several runs of a model."""

    request_id: str = ""
    """The client's own `x-request-id`, or one that the server made."""
    method: str = ""
    """The full name, such as "/infosink.v1.SamplingService/Sample"."""
    peer: str = ""
    """The client's address."""
    model: str = ""
    """The name of the model that answers; empty where none was found, and never the client's own text."""
    role: str = ""
    """"generator" or "encoder": the session that the rows are for; empty where no model is asked."""
    rows: int = 0
    """Those that were asked for, once they are checked."""
    queue_seconds: float = 0.0
    """In the queue, before the runs."""
    batch_rows: int = 0
    """The rows, its own and others', of the largest run that it took part in."""
    compute_seconds: float = 0.0
    """In runs of the model, shared with the others of the batch."""
    runs: list[tuple[int, float]] = field(default_factory=list)
    """The rows and the seconds of the runs that are counted with this call: each with one of those that shared it."""
    codec_seconds: float = 0.0
    """Reading the request's pictures and tensors, and making the answer's."""
    provider: str = ""
    """The execution provider that computed."""
    reason: str = ""
    """Why it was refused, such as "QUEUE_FULL": the ErrorInfo's reason; empty where it was not."""
    code: str = ""
    """The name of the final status code; empty as long as there is none."""
    started: float = field(default_factory=time.monotonic)
    """On the monotonic clock."""


_current: ContextVar[CallRecord] = ContextVar("call_record")


def current() -> CallRecord:
    """The record of the call that the running task answers; outside of one, a record that nobody reads."""
    record = _current.get(None)
    return CallRecord() if record is None else record


def bind(record: CallRecord) -> None:
    """Makes `record` current for the running task, which answers this call alone, and for the tasks that it starts."""
    _current.set(record)
