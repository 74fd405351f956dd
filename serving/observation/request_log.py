"""The server's log on stderr: a line a message, a line a request, as text or as JSON."""

import json
import logging
import queue
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from ..calls.call_record import CallRecord
from ..settings import LogFormat, LogLevel

_WAITING_LINES = 10_000
_FIELD_CHARACTERS = 200
_SIMPLE = re.compile(r"[\w./:+\[\]%-]+", re.ASCII)

_FAULTS = frozenset({"UNKNOWN", "INTERNAL", "DATA_LOSS"})
_UNREMARKABLE = frozenset({"OK", "CANCELLED"})

_logger = logging.getLogger(__name__)


def start_logging(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> logging.Handler:
    """Writes what is logged to `stream`, stderr where None, from now on.

    A thread of its own writes: a reader that does not keep up delays nobody. Lines that it has no room for are dropped,
    and counted in the next one.

    Args:
        log_format: "text": one line a message, then its fields as name=value; "json": one object a line.
        level: "debug", "info", "warning" or "error": messages below it are left out; other packages' below "warning".
        stream: Where to.

    Returns:
        The handler; its `close` writes what waits, for at most a second.
    """
    handler = _BackgroundHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, _number(level)), force=True)
    logging.getLogger("infosink.serving").setLevel(_number(level))
    logging.captureWarnings(True)
    return handler


def log_request(record: CallRecord, seconds: float, trace: Mapping[str, str]) -> None:
    """Writes one line about a call that ended.

    At "error" if the server is at fault, at "debug" if it was answered or the client went, at "info" if it was refused.
    The line holds counts and times, and nothing of what the request or its metadata says but the request id.

    Args:
        record: The call, with its code.
        seconds: How long it took as a whole.
        trace: The names of its trace and span, where it has any.
    """
    level = logging.ERROR if record.code in _FAULTS else logging.INFO
    if record.code in _UNREMARKABLE:
        level = logging.DEBUG
    if not _logger.isEnabledFor(level):
        return
    fields = {
        "request_id": record.request_id,
        "method": record.method.removeprefix("/"),
        "code": record.code,
        "reason": record.reason,
        "peer": record.peer,
        "seconds": round(seconds, 6),
        "model": record.model,
        "role": record.role,
        "rows": record.rows,
        "batch_rows": record.batch_rows,
        "queue_seconds": round(record.queue_seconds, 6),
        "compute_seconds": round(record.compute_seconds, 6),
        "codec_seconds": round(record.codec_seconds, 6),
        "provider": record.provider,
        **trace,
    }
    told = {name: value for name, value in fields.items() if value}
    _logger.log(level, "request", extra={"fields": told})


def json_line(level: str, message: str, **fields: object) -> str:
    """One JSON object, as the log writes them: all ASCII, without line breaks."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": time, "level": level, "message": message, **fields}, separators=(",", ":"))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {name: _shortened(value) for name, value in _fields(record).items()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json_line(record.levelname, record.getMessage(), logger=record.name, **fields)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = _on_one_line(record.getMessage())
        fields = " ".join(f"{name}={_simple(value)}" for name, value in _fields(record).items())
        lines = [f"infosink-serve: {record.levelname}: {text}{fields and ' ' + fields}"]
        if record.exc_info:
            # Indented, so that no message in it can pass for a line of the log.
            lines += [f"    {_on_one_line(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


class _BackgroundHandler(logging.Handler):
    """Formats at once and writes later."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING_LINES)
        self._dropped = 0
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            # Nobody reads, and nobody will within a second.
            return
        finally:
            super().close()
        self._writer.join(1)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            lines = [line]
            if self._dropped:
                lines.append(self._format_dropped())
            try:
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()
            except (OSError, ValueError):
                # Whoever read it has gone, which is no reason to stop serving.
                continue

    def _format_dropped(self) -> str:
        dropped, self._dropped = self._dropped, 0
        message = f"{dropped} lines were dropped here: they came faster than they were read"
        return self.format(logging.LogRecord(__name__, logging.WARNING, "", 0, message, None, None))


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _shortened(value: object) -> object:
    return value[:_FIELD_CHARACTERS] if isinstance(value, str) else value


def _simple(value: object) -> str:
    text = str(_shortened(value))
    return text if _SIMPLE.fullmatch(text) else json.dumps(text)


def _on_one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
