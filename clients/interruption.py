"""An end from outside: what it breaks off can still tidy up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP came in. No `Exception`, so that only what tidies up holds it up, as with KeyboardInterrupt.

    Attributes:
        signal_number: Which of the two.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` within the context on SIGTERM and SIGHUP, unless they are ignored or handled already.

    Further ones are ignored until the context ends: a terminal that closes may send SIGHUP twice.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced: list[signal.Signals] = []
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminate)
                replaced.append(number)
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _terminate(signal_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise Terminated(signal_number)
