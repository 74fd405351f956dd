"""How a client knows its server, and makes itself known: TLS, a certificate of its own, a bearer token."""

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

TLS_VARIABLE = "INFOSINK_TLS"
CA_VARIABLE = "INFOSINK_CA"
CERTIFICATE_VARIABLE = "INFOSINK_CERTIFICATE"
KEY_VARIABLE = "INFOSINK_KEY"
TOKEN_FILE_VARIABLE = "INFOSINK_TOKEN_FILE"  # noqa: S105

_LARGEST_FILE = 1 << 20
# RFC 6750's b64token.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_LONGEST_TOKEN = 1024


@dataclass(frozen=True)
class Credentials:
    """What a connection is made with.

    Attributes:
        tls: Whether it is encrypted.
        ca: PEM: the CAs of which the server's certificate must be; None for the public ones that gRPC brings.
        certificate: PEM: the client's own certificate; None where the server asks for none.
        key: PEM: its private key.
        token: What the server knows the client by; None where it asks for none.
    """

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def checked(
        cls,
        address: str,
        *,
        tls: bool = False,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        token: str | None = None,
    ) -> "Credentials":
        """The arguments, and what the environment says where they say nothing; CAs and certificates imply TLS.

        Raises:
            ValueError: If a certificate lacks its key, a token has letters that none has, or a token would reach
                another machine unencrypted.
        """
        ca, certificate, key = (
            Path(value) if (value := given or os.environ.get(variable)) else None
            for given, variable in ((ca, CA_VARIABLE), (certificate, CERTIFICATE_VARIABLE), (key, KEY_VARIABLE))
        )
        if (certificate is None) != (key is None):
            raise ValueError(
                f"{certificate or key} is of no use alone; give a certificate with --certificate and its key with --key"
            )
        if token is None and (path := os.environ.get(TOKEN_FILE_VARIABLE)):
            token = read_token(path)
        if token is not None:
            _check_token(token, "the token")
        tls = tls or os.environ.get(TLS_VARIABLE, "0") not in ("", "0") or ca is not None or certificate is not None
        if token is not None and not tls and not _stays_here(address):
            raise ValueError(
                f"a token for {address} would cross the network unencrypted; "
                "add --tls, or --ca with the CA of the server's certificate"
            )
        return cls(tls, ca, certificate, key, token)

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """What the files hold now: CAs, key and certificate, as gRPC takes them.

        Raises:
            ValueError: If a file cannot be read, is not what it should be, or the key is of another certificate.
        """
        ca = None if self.ca is None else _certificates(self.ca, "--ca")
        if self.certificate is None or self.key is None:
            return ca, None, None
        certificate, key = _certificates(self.certificate, "--certificate"), _contents(self.key, "--key")
        _check_pair(self.certificate, self.key)
        return ca, key, certificate

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call bears."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


def read_token(path: str | os.PathLike[str]) -> str:
    """The one token in a file, where # begins a comment.

    Raises:
        ValueError: If the file cannot be read, or does not hold one token; it never shows what the file holds.
    """
    lines = _contents(Path(path), "--token-file").decode("ascii", "replace").splitlines()
    tokens = [token for line in lines if (token := line.partition("#")[0].strip())]
    if len(tokens) != 1:
        raise ValueError(f"{path} holds {len(tokens)} tokens; give a file with one, that the server knows you by")
    _check_token(tokens[0], str(path))
    return tokens[0]


def _check_token(token: str, name: str) -> None:
    if not _TOKEN.fullmatch(token) or len(token) > _LONGEST_TOKEN:
        raise ValueError(f"{name} is not up to {_LONGEST_TOKEN} of A-Z a-z 0-9 . _ ~ + / - and =; give one that is")


def _stays_here(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _contents(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            contents = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {path}: {reason}; give a file that can be read to {option}") from None
    if len(contents) > _LARGEST_FILE:
        raise ValueError(f"{path} exceeds 1 MiB; give a smaller file to {option}")
    return contents


def _certificates(path: Path, option: str) -> bytes:
    contents = _contents(path, option)
    try:
        # Between the certificates there may be words of any alphabet.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=contents.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{path} holds no certificate in PEM; give one that does to {option}") from None
    return contents


def _check_pair(certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, lambda: "")
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            problem = f"the key {key} is not that of the certificate {certificate}; give the two that belong together"
        else:
            problem = f"{key} holds no private key in PEM without a passphrase; give one that does to --key"
        raise ValueError(problem) from None
