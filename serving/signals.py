"""INT and TERM, from the first moment to the last."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_STARTING = "Error: interrupted while it was starting; nothing was served\n"


class StopSignals:
    """Takes INT and TERM over from now on: the first one stops the server, the second ends the process at once.

    While there is nothing to stop yet, the first one ends the process too. The exit code of a process that a signal
    ended is 128 and the signal's number.

    The system hands the signals over in a pipe, which a thread reads. A handler in Python would not do: it runs between
    two steps of the main thread, too late where that has just gone to wait for good, and it waits for itself where it
    sets an event whose lock the main thread holds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, Callable[[], object]] = {}
        received, handed_over = os.pipe()
        threading.Thread(target=self._heed, args=(received,), daemon=True).start()
        os.set_blocking(handed_over, False)
        signal.set_wakeup_fd(handed_over)
        for number in _STOPPING:
            _hand_over(number)

    def stop_with(self, stop: Callable[[], object]) -> None:
        """Has the first signal call `stop`, in another thread than this."""
        with self._lock:
            self._calls |= dict.fromkeys(_STOPPING, stop)

    def call_on(self, number: signal.Signals, call: Callable[[], object]) -> None:
        """Has another signal call `call` each time, in another thread than this."""
        with self._lock:
            self._calls[number] = call
        _hand_over(number)

    def _heed(self, received: int) -> None:
        stopping = False
        while True:
            (number,) = os.read(received, 1)
            with self._lock:
                call = self._calls.get(number)
                if number in _STOPPING and (stopping or call is None):
                    # Under the lock: what was starting goes no further.
                    _end(number, "" if stopping else _STARTING)
                stopping = stopping or number in _STOPPING
            if call is not None:
                # What has ended cannot be told any more.
                with suppress(RuntimeError):
                    call()


def _hand_over(number: signal.Signals) -> None:
    # What has no handler at all is not handed over.
    signal.signal(number, lambda *_: None)


def _end(number: int, words: str) -> None:
    try:
        os.write(sys.stderr.fileno(), words.encode())
    finally:
        os._exit(128 + number)
