"""The one error of an export."""


class ExportError(Exception):
    """An export that cannot be made or must not be kept; the message says why and what to do."""
