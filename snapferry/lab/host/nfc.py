"""The host's NFC server: authd on TCP 902's place, its two TLS sessions, and a thread for each connection."""

import contextlib
import hashlib
import logging
import random
import socket
import ssl
import threading
from pathlib import Path

from snapferry.lab.host import nfc_wire as wire
from snapferry.lab.host.chain import View
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.nfc_session import NfcMemory, NfcSession
from snapferry.lab.host.service import HostService

_log = logging.getLogger(__name__)
_HANDSHAKE_SECONDS = 30.0
_IDLE_SECONDS = 900.0
_BANNER = "220 VMware Authentication Daemon Version 1.10: SSL Required, ServerDaemonProtocol:SOAP, , NFCSSL supported/t"
_SERVICES = {"vpxa-nfcssl": "ha-nfcssl", "ha-nfcssl": "ha-nfcssl", "vpxa-nfc": "ha-nfc", "ha-nfc": "ha-nfc"}


class NfcServer:
    """Serves NFC on a free port of 127.0.0.1 until `close`.

    Args:
        cert, key: PEM files of the host.
        memory_bytes: NFC buffer memory of the host.
        fastlz: whether it compresses what it sends where the client asks for it.
    """

    def __init__(
        self, service: HostService, cert: Path, key: Path, memory_bytes: int = 96_000_000, *, fastlz: bool = False
    ) -> None:
        self._fastlz = fastlz
        self._service = service
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(cert, key)
        self._tls.num_tickets = 0  # sessions are never resumed, and a ticket may get in the way of the second handshake
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(_first_certificate(cert))).hexdigest().upper()
        self._thumbprint = ":".join(digest[at : at + 2] for at in range(0, 64, 2))
        self._memory = NfcMemory(memory_bytes)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self._sockets: set[wire.Socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="nfc-accept", daemon=True).start()

    def close(self) -> None:
        """Ends the listener and every connection."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self._service.tally.connection()
            self._number += 1
            rng = random.Random(f"{self._service.seed}/{self._number}")
            threading.Thread(target=self._serve, args=(raw, rng), name=f"nfc-{self._number}", daemon=True).start()

    def _serve(self, raw: socket.socket, rng: random.Random) -> None:
        sock: wire.Socket = raw
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.settimeout(_HANDSHAKE_SECONDS)
            if self._service.faults.take("nfc_connect"):
                raise ConnectionAbortedError("Closed on demand.")
            raw.sendall(f"{_BANNER}\r\n".encode())
            sock = tls = self._tls.wrap_socket(raw, server_side=True)
            accepted = self._authd(tls)
            if accepted is None:
                return
            (vm_id, key), encrypted = accepted
            # The first TLS session is abandoned without a word; the socket under it goes on.
            sock = socket.socket(fileno=tls.detach())
            sock.settimeout(_HANDSHAKE_SECONDS)
            if encrypted:
                sock = self._tls.wrap_socket(sock, server_side=True)
            sock.settimeout(_IDLE_SECONDS)
            with self._lock:
                self._sockets.add(sock)

            def open_disk(path: str) -> View:
                return self._service.open_disk(vm_id, key, path)

            service = self._service
            session = NfcSession(
                sock, open_disk, self._memory, service.faults, service.tally, rng, self._stopping, fastlz=self._fastlz
            )
            session.run()
        except (OSError, HostError) as error:
            _log.info("NFC connection ended: %s", error)
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _authd(self, tls: ssl.SSLSocket) -> tuple[tuple[str, int | None], bool] | None:
        """The plain-text dialogue; (whose disks, whether NFC is encrypted), None where the ticket is refused."""
        command, _, ticket = wire.receive_line(tls).partition(" ")
        if command != "SESSION" or wire.receive_line(tls) != "BANNER ":
            raise wire.ProtocolError("SESSION and BANNER are due.")
        grant = self._service.take_ticket(ticket)
        if grant is None or self._service.faults.take("nfc_ticket"):
            tls.sendall(b"530 Login incorrect.\r\n")
            return None
        tls.sendall(b"220 VMware Authentication Daemon\r\n")
        if wire.receive_line(tls) != "THUMBPRINT_SHA2 PlainText":
            raise wire.ProtocolError("THUMBPRINT_SHA2 is due.")
        tls.sendall(f"200 {self._thumbprint}\r\n".encode())
        command, _, name = wire.receive_line(tls).partition(" ")
        if command != "PROXY" or name not in _SERVICES:
            tls.sendall(b"504 Proxy service isn't known.\r\n")
            return None
        connected = _SERVICES[name]
        tls.sendall(f"200 Connect {connected}\r\n".encode())
        return grant, connected == "ha-nfcssl"


def _first_certificate(path: Path) -> str:
    """The first certificate of a PEM file: the host's own, before any CA's."""
    end = "-----END CERTIFICATE-----"
    return path.read_text().partition(end)[0] + end
