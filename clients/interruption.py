"""An end from outside: what it breaks off can still tidy up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNHANDLED = (signal.SIG_DFL, signal.default_int_handler)


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
    """Raises `Terminated` within the context on SIGTERM and SIGHUP, and KeyboardInterrupt on SIGINT.

    Those that are ignored or handled already are left alone. Further ones are ignored until the context ends, so that
    tidying up is not broken off: a terminal that closes may send SIGHUP twice, and people press Ctrl-C twice.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced = {number: signal.getsignal(number) for number in _SIGNALS if signal.getsignal(number) in _UNHANDLED}
    try:
        for number in replaced:
            signal.signal(number, _terminate)
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _terminate(signal_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if signal_number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(signal_number)
