"""Certificates: who is trusted, and that nothing secret is sent before."""

import datetime
import hashlib
import ipaddress
import logging
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from snapferry.vsphere import CertificateNotTrusted, Session, Unreachable, VCenterLogin

CANARY = "canary-8f2a1c"


class Server:
    """A TLS server with a self-signed certificate for 127.0.0.1 that keeps what it is sent."""

    def __init__(self, folder: Path) -> None:
        self.pem, self.der = _certificate(folder / "server.pem")
        self._received = bytearray()
        self.handshakes = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    def received(self) -> bytes:
        """All that was ever sent to it; it serves nobody afterwards."""
        self.close()
        return bytes(self._received)

    def close(self) -> None:
        if self._thread.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(5)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self.handshakes += 1
                    self._received += connection.recv(65536)
            except OSError:
                continue


def _certificate(path: Path) -> tuple[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vcenter.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.touch(0o600)
    path.write_bytes(secret + pem)
    return pem.decode(), certificate.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    yield one
    one.close()


def session(server: Server, **more: Any) -> Session:
    values = {"host": "127.0.0.1", "port": server.port, "user": "root", "password": CANARY, "timeout_seconds": 5}
    return Session(VCenterLogin.model_validate(values | more))


def test_a_certificate_that_nobody_vouches_for_is_refused_and_its_fingerprint_is_said(server: Server) -> None:
    with pytest.raises(CertificateNotTrusted) as caught:
        _ = session(server).about
    seen = ":".join(server.sha256[at : at + 2] for at in range(0, 64, 2)).upper()
    assert seen in caught.value.cause
    assert "certificate_sha256" in caught.value.next_step
    assert server.received() == b""


def test_another_certificate_than_the_pinned_one_is_refused_before_anything_is_sent(server: Server) -> None:
    with pytest.raises(CertificateNotTrusted, match="another certificate than the pinned one"):
        _ = session(server, certificate_sha256="ab" * 32).about
    assert server.received() == b""
    assert server.handshakes == 1


def test_a_pin_counts_even_where_verification_is_switched_off(server: Server) -> None:
    with pytest.raises(CertificateNotTrusted):
        _ = session(server, certificate_sha256="ab" * 32, verify=False).about
    assert server.received() == b""


def test_a_certificate_for_another_name_is_refused_although_its_ca_is_known(server: Server) -> None:
    with pytest.raises(CertificateNotTrusted, match=r"(?i)hostname mismatch"):
        _ = session(server, host="localhost", ca_pem=server.pem).about
    assert server.received() == b""


@pytest.mark.parametrize("trust", ["pin", "pin with colons", "ca"])
def test_the_pinned_certificate_and_one_that_the_ca_signed_are_accepted(server: Server, trust: str) -> None:
    colons = ":".join(server.sha256[at : at + 2] for at in range(0, 64, 2)).upper()
    given = {
        "pin": {"certificate_sha256": server.sha256},
        "pin with colons": {"certificate_sha256": colons},
        "ca": {"ca_pem": server.pem},
    }[trust]
    with pytest.raises(Unreachable):
        _ = session(server, **given).about  # it isn't a vCenter: it hangs up
    assert server.received().startswith(b"GET /sdk/vimServiceVersions.xml")


def test_switching_verification_off_is_loud(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        pytest.warns(UserWarning, match="NOT verified"),
        pytest.raises(Unreachable),
    ):
        _ = session(server, verify=False).about
    assert "NOT verified" in caplog.text
    assert server.received().startswith(b"GET /sdk")


def test_a_verified_connection_doesnt_warn(server: Server) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Unreachable):
            _ = session(server, ca_pem=server.pem).about


def test_what_is_no_certificate_is_said_to_be_none(server: Server) -> None:
    with pytest.raises(CertificateNotTrusted, match="no certificate in PEM"):
        _ = session(server, ca_pem="/etc/ssl/ca.pem").about


def test_a_server_that_isnt_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    login = VCenterLogin(host="127.0.0.1", port=port, user="root", password=CANARY, timeout_seconds=5)
    with pytest.raises(Unreachable, match="can't be reached"):
        _ = Session(login).about


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        login = VCenterLogin(
            host="127.0.0.1", port=silent.getsockname()[1], user="root", password=CANARY, timeout_seconds=0.2
        )
        with pytest.raises(Unreachable, match="no answer in time"):
            _ = Session(login).about


def test_the_password_is_in_no_text_of_login_or_session(server: Server) -> None:
    one = session(server, ca_pem=server.pem)
    assert CANARY not in f"{one} {one!r} {one.login} {one.login!r} {one.login.model_dump_json()}"


def test_a_password_of_the_wrong_type_is_not_shown() -> None:
    with pytest.raises(ValueError, match="password") as caught:
        VCenterLogin.model_validate({"host": "a", "user": "root", "password": [CANARY]})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("host", ["https://vcenter.test", "vcenter.test/sdk", "root@vcenter.test"])
def test_a_host_is_a_name_and_not_an_address_of_a_page(host: str) -> None:
    with pytest.raises(ValueError, match="host name alone"):
        VCenterLogin.model_validate({"host": host, "user": "root", "password": CANARY})


def test_a_pin_that_is_no_sha256_is_refused() -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        VCenterLogin.model_validate({"host": "a", "user": "root", "password": CANARY, "certificate_sha256": "AB:CD:EF"})
