"""TLS: the server's certificate, those that clients need, and both read anew when their files change."""

import logging
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import grpc

from ..errors import StartupError
from .secret_files import read_secret, warn_of_readers

EXPIRY_WARNING_DAYS = 30

_DAY = 86_400
_logger = logging.getLogger(__name__)


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """TLS, and with `client_ca` mutual TLS, for a port.

    The files are read again before each handshake: a new pair serves the connections made from then on, and one that
    is half-written, or does not match, leaves the old one serving.

    Args:
        certificate: PEM: the server's certificate, then those between it and its CA.
        key: PEM: the certificate's private key, without a passphrase.
        client_ca: PEM: the CAs of which a client's certificate must be; None where clients need none.

    Raises:
        StartupError: If a file cannot be read, is not what it should be, or the key is of another certificate.
    """
    certificates = _Certificates(certificate, key, client_ca)
    return grpc.dynamic_ssl_server_credentials(
        certificates.initial,
        certificates.fetch,  # type: ignore[arg-type]  # None is allowed, and means no change
        require_client_authentication=client_ca is not None,
    )


class _Contents(NamedTuple):
    """What the files hold, to be compared: times and sizes miss a change within a clock's tick."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class _Certificates:
    """The files, and what is served of them; `fetch` is called by any of gRPC's threads."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._lock = threading.Lock()
        self._complaint = ""
        self._contents = self._read()
        self.initial = self._configuration(self._contents)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What to serve from now on; None for no change."""
        with self._lock:
            try:
                contents = self._read()
                if contents == self._contents:
                    return None
                self._contents = contents
                configuration = self._configuration(contents)
            except StartupError as error:
                if str(error) != self._complaint:
                    _logger.error("%s; the certificate read before still serves", error)  # noqa: TRY400
                self._complaint = str(error)
                return None
            self._complaint = ""
            _logger.info("the certificate %s was read anew and serves from now on", self._certificate)
            return configuration

    def _read(self) -> _Contents:
        return _Contents(
            read_secret(self._certificate, "--tls-certificate"),
            read_secret(self._key, "--tls-key"),
            None if self._client_ca is None else read_secret(self._client_ca, "--client-ca"),
        )

    def _configuration(self, contents: _Contents) -> grpc.ServerCertificateConfiguration:
        _check_certificates(contents.certificate, self._certificate, "--tls-certificate")
        if contents.client_ca is not None:
            _check_certificates(contents.client_ca, self._client_ca, "--client-ca")
        context = self._checked_pair()
        # The pair was checked by its files' names, so they must still hold what is going to be served.
        if self._read() != contents:
            raise StartupError(f"{self._certificate} or {self._key} is being written: try again when both are whole")
        self._warn(context, contents)
        return grpc.ssl_server_certificate_configuration(
            [(contents.key, contents.certificate)], root_certificates=contents.client_ca
        )

    def _checked_pair(self) -> ssl.SSLContext:
        asked_for_passphrase = False

        def no_passphrase() -> str:
            nonlocal asked_for_passphrase
            asked_for_passphrase = True
            return ""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, no_passphrase)
        except OSError as error:
            if asked_for_passphrase:
                problem = f"the key {self._key} has a passphrase: give one without to --tls-key"
            elif isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
                problem = (
                    f"the key {self._key} is not that of the certificate {self._certificate}: "
                    "give the two that belong together to --tls-key and --tls-certificate"
                )
            elif isinstance(error, ssl.SSLError) and error.reason:
                problem = (
                    f"the certificate {self._certificate} and the key {self._key} cannot be used "
                    f"({error.reason.replace('_', ' ').lower()}): give others to --tls-certificate and --tls-key"
                )
            else:
                problem = f"{self._key} holds no whole private key in PEM: give one that does to --tls-key"
            raise StartupError(problem) from None
        return context

    def _warn(self, context: ssl.SSLContext, contents: _Contents) -> None:
        warn_of_readers(self._key)
        try:
            ends = _end_of_validity(context, contents.certificate)
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason
            _logger.warning("clients will refuse the certificate %s: %s", self._certificate, reason)
        else:
            _warn_of_expiry(self._certificate, ends)
        if contents.client_ca is not None:
            authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authorities.load_verify_locations(cadata=_text(contents.client_ca))
            for authority in authorities.get_ca_certs():
                _warn_of_expiry(self._client_ca, ssl.cert_time_to_seconds(str(authority["notAfter"])))


def _check_certificates(contents: bytes, path: Path | None, option: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=_text(contents))
    except (ssl.SSLError, ValueError):
        raise StartupError(f"{path} holds no whole certificate in PEM: give one that does to {option}") from None


def _text(contents: bytes) -> str:
    # Between the certificates there may be words of any alphabet.
    return contents.decode("ascii", "ignore")


def _end_of_validity(server: ssl.SSLContext, certificate: bytes) -> float:
    """When the certificate that the context serves expires, in seconds since 1970.

    The standard library tells it of a peer's certificate alone, so the two ends of a handshake are both played here,
    the client trusting this very certificate.

    Raises:
        ssl.SSLError: If any client would refuse it, because it has expired for one.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=_text(certificate))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server)
    for end in (asking, answering):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    asking.do_handshake()
    peer = asking.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(peer["notAfter"])))


def _warn_of_expiry(path: Path | None, ends: float) -> None:
    days = (ends - time.time()) / _DAY
    if days < 0:
        _logger.warning("a certificate in %s has expired: renew it", path)
    elif days < EXPIRY_WARNING_DAYS:
        date = time.strftime("%Y-%m-%d", time.gmtime(ends))
        _logger.warning("a certificate in %s expires in %.0f days, on %s: renew it", path, days, date)
