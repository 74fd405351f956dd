"""What a connection that was never made means for a person, from gRPC's words."""

from .credentials import Credentials

# What BoringSSL or gRPC says, and what to make of it.
_CERTIFICATE = {
    "certificate has expired": "the certificate of the server at {address} has expired; its operator must renew it",
    "certificate is not yet valid": "the certificate of the server at {address} is not valid yet; see the clocks",
    "Hostname Verification Check failed": "the certificate of the server at {address} is for another name; "
    "name the server as its certificate does",
    "CERTIFICATE_VERIFY_FAILED": "the certificate of the server at {address} is not of {authority}; "
    "give the CA that it is of with --ca, or ask the server's operator",
}
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe", "alert", "ALERT")


def handshake_failure(details: str, address: str, credentials: Credentials) -> str | None:
    """One line on what went wrong between the two ends' TLS; None where that is not it.

    Args:
        details: gRPC's words.
        address: The server's.
        credentials: What the connection was to be made with.
    """
    authority = credentials.ca or "a public CA"
    for words, meaning in _CERTIFICATE.items():
        if words in details:
            return meaning.format(address=address, authority=authority)
    if "WRONG_VERSION_NUMBER" in details:
        return (
            f"the server at {address} does not speak TLS; leave out --tls, --ca and --certificate, "
            "or start it with --tls-certificate and --tls-key"
        )
    if not any(words in details for words in _CLOSED):
        return None
    if not credentials.tls:
        return f"the server at {address} closed the connection; where it speaks TLS, add --tls, or --ca with its CA"
    if credentials.certificate is None:
        return (
            f"the server at {address} closed the connection; where it asks for clients' certificates, "
            "give yours with --certificate and --key"
        )
    return (
        f"the server at {address} closed the connection; see whether {credentials.certificate} is of a CA "
        "that it trusts, and has not expired"
    )
