"""What can go wrong between a client and a server."""


class InfosinkError(Exception):
    """The base of all errors raised here; its message says what to do."""


class ServerUnreachableError(InfosinkError):
    """No server answered at the address, or none within the deadline."""


class RequestRefusedError(InfosinkError):
    """The server answered and refused the request.

    Attributes:
        code: The gRPC status code's name, such as "INVALID_ARGUMENT".
        details: The server's own words.
    """

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details or f"the server refused the request ({code}) without giving a reason")
        self.code = code
        self.details = details


class ServerFailedError(InfosinkError):
    """The server answered that it failed; the request may have been right.

    Attributes:
        code: The gRPC status code's name, such as "INTERNAL".
        details: The server's own words.
    """

    def __init__(self, code: str, details: str) -> None:
        super().__init__(
            f"the server failed ({code}): {details or 'it gave no reason'}; its log says more, and another try may do"
        )
        self.code = code
        self.details = details


class MalformedReplyError(InfosinkError):
    """The server's reply does not follow `infosink.v1`, or is not about the model that was asked for."""


class UnreadableImageError(InfosinkError):
    """A file that is no image, or not one that the model can read."""


class UnwritableOutputError(InfosinkError):
    """The output cannot be written where, or as, it was asked for."""
