"""How long the rows that wait will take, by what rows took."""

_NEW_WEIGHT = 0.2
"""Of the latest run in the average of what a row takes."""
_HALF_LIFE = 5.0
"""Seconds without a run after which half of what is known is believed."""


class Pace:
    """What a row takes in a full batch, from the runs there were; a lower bound, since waiting is refused by it.

    No clock of its own: times are arguments, in seconds.

    Args:
        seconds_per_row: What is known before the first run; None where nothing is.
        now: When it was measured.
        full_rows: The rows of a run from which on a row takes no less for being one of more.
    """

    def __init__(self, seconds_per_row: float | None, now: float, full_rows: int) -> None:
        self._seconds_per_row = seconds_per_row
        self._learned = now
        self._full_rows = full_rows

    def learn(self, rows: int, seconds: float, now: float) -> None:
        """Takes a run into account. A row alone takes longer than one among many: a small run only ever says less."""
        latest = seconds / rows
        before = self._seconds_per_row
        if rows < self._full_rows and (before is None or latest >= before):
            return
        if before is None:
            before = latest
        # One run that was held up by something else says little.
        self._seconds_per_row = before + _NEW_WEIGHT * (min(latest, 2 * before) - before)
        self._learned = now

    def seconds(self, rows: int, now: float) -> float:
        """What so many rows take at least; 0 where nothing is known.

        What was learned long ago is believed less and less: were it never tried again, whoever is refused by it would
        be refused for ever.
        """
        forgotten: float = 0.5 ** ((now - self._learned) / _HALF_LIFE)
        return rows * (self._seconds_per_row or 0.0) * forgotten
