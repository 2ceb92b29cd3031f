"""Which certificate a connection to vCenter accepts.

pyVmomi's own pinning (`thumbprint`, `serverPemCert`) is silently skipped when the context doesn't verify, and it
doesn't verify for localhost; so every connection gets a context of ours that does (seen with pyVmomi 9.1.1).
"""

import hashlib
import logging
import ssl
import warnings

from snapferry.vsphere.errors import CertificateNotTrusted, Unreachable

log = logging.getLogger(__name__)


def tls_context(
    host: str, port: int, *, ca_pem: str | None, certificate_sha256: str | None, verify: bool, timeout_seconds: float
) -> ssl.SSLContext:
    """A context that accepts the pinned certificate only, else what the CA (the system's by default) signed.

    For a pin the server's certificate is fetched first, over a connection that carries nothing else.

    Raises:
        CertificateNotTrusted: the certificate isn't the pinned one, or `ca_pem` is no certificate.
        Unreachable: the server didn't answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate_sha256:
        context.check_hostname = False  # the certificate itself is the identity
        context.load_verify_locations(cadata=_pinned(host, port, certificate_sha256, timeout_seconds))
    elif not verify:
        text = f"The certificate of {host}:{port} is NOT verified: anybody between can read the password."
        warnings.warn(text, stacklevel=2)
        log.warning(text)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_pem:
        try:
            context.load_verify_locations(cadata=ca_pem)
        except (ssl.SSLError, ValueError) as error:
            raise CertificateNotTrusted(
                f"The CA given for {host} is no certificate in PEM ({error}).",
                "Give the text of the CA's certificate, from -----BEGIN CERTIFICATE----- on.",
            ) from error
    else:
        context.load_default_certs()
    return context


def fetch_certificate(host: str, port: int, timeout_seconds: float) -> tuple[str, str]:
    """The certificate that the server shows, as PEM, and its SHA-256 (`AA:BB:…`); nothing is sent but a handshake.

    Raises:
        Unreachable: no TLS server answers there.
    """
    try:
        pem = ssl.get_server_certificate((host, port), timeout=timeout_seconds)
    except (OSError, ValueError) as error:
        raise unreachable(host, port, error) from error
    return pem, fingerprint(ssl.PEM_cert_to_DER_cert(pem))


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate as browsers and openssl print it, `AA:BB:…`."""
    return _colons(hashlib.sha256(der).hexdigest())


def _colons(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()


def _pinned(host: str, port: int, certificate_sha256: str, timeout_seconds: float) -> str:
    pem, seen = fetch_certificate(host, port, timeout_seconds)
    if seen != _colons(certificate_sha256):
        raise CertificateNotTrusted(
            f"{host}:{port} shows another certificate than the pinned one: SHA-256 {seen}.",
            "If vCenter's certificate was renewed, compare this on vCenter itself and pin the new one; else somebody "
            "stands between. No password was sent.",
        )
    return pem


def not_trusted(
    host: str, port: int, error: ssl.SSLCertVerificationError, timeout_seconds: float
) -> CertificateNotTrusted:
    """The error for a certificate that didn't verify, with what was seen and how to trust it."""
    try:
        seen = fetch_certificate(host, port, timeout_seconds)[1]
    except Unreachable:
        seen = "not seen again"
    return CertificateNotTrusted(
        f"The certificate of {host}:{port} isn't trusted: {error.verify_message.rstrip('.')}. Its SHA-256 is {seen}.",
        "Give the PEM of the CA that signed it (ca_pem), or compare the SHA-256 on vCenter itself and pin it "
        "(certificate_sha256). No password was sent.",
    )


def unreachable(host: str, port: int, error: BaseException) -> Unreachable:
    """The error for a server that doesn't answer as it should."""
    reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Unreachable(
        f"{host}:{port} can't be reached: {reason}.",
        "Check host name, port, firewall, and whether vCenter runs.",
    )
