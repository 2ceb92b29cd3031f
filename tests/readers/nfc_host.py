"""A host that speaks NFC from the protocol's bytes, and misbehaves where a test wants it to."""

import datetime
import hashlib
import random
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from snapferry.lab.host.fastlz import compress
from snapferry.vsphere.models import NfcTicket

MAGIC = 0xA100DA7A
FASTLZ = 2 << 32 | 1
Sock = socket.socket | ssl.SSLSocket


@dataclass
class Fragment:
    """The fields of one answer to a read, before they go out; a test may falsify them."""

    magic: int
    kind: int
    size: int
    operation: int
    opcode: int
    offset: int
    total: int
    start: int
    length: int
    on_wire: int
    data: memoryview


@dataclass
class Behaviour:
    """What the host does; the defaults are a well-behaved one."""

    fragment_bytes: int = 64 << 10
    shuffle: bool = True
    gather: int = 1
    """Answers nothing on a connection before this many requests are open."""
    grant: tuple[int, int] = (0, 0)
    most_session_bytes: int = 8 << 20
    most_sessions: int = 99
    refused_tickets: int = 0
    open_errors: list[tuple[int, str]] = field(default_factory=list)
    read_errors: list[tuple[int, str]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    """Each is spent by one connection: it is cut when it has sent so many bytes of fragments, inside one."""
    silent_at: str = ""
    """`greeting`, `ticket`, `classic`, `session`, `open` or `read`: from there on nothing is answered; `trickle`: as
    good as nothing."""
    spoil: Callable[[Fragment], None] | None = None
    second_certificate: "Certificate | None" = None
    greeting: bytes = b"220 authd: SSL Required\r\n"
    fastlz: bool = False
    """Compression has to be asked for, and is used where it makes a fragment shorter."""


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate in a PEM file with its key."""

    path: Path
    der: bytes

    def thumbprint(self, digest: str) -> str:
        text = hashlib.new(digest, self.der).hexdigest().upper()
        return ":".join(text[at : at + 2] for at in range(0, len(text), 2))


class Silence(Exception):
    """The host says nothing more on this connection."""


class Host:
    """Serves one disk on a free port; every connection has a thread."""

    def __init__(self, disk: bytes, certificate: Certificate, behaviour: Behaviour) -> None:
        self.disk = memoryview(disk)
        self.certificate = certificate
        self.behaviour = behaviour
        self.requests: list[tuple[int, int]] = []
        self.asked: list[tuple[int, int]] = []
        self.paths: list[str] = []
        self.tickets: set[str] = set()
        self.used: list[str] = []
        self.open_sessions = self.most_open = self.goodbyes = self.fragments = self.sent_bytes = self.most_in_flight = 0
        self.ended = threading.Event()
        self.changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def ticket(self) -> NfcTicket:
        name = f"ticket-{len(self.tickets)}"
        self.tickets.add(name)
        return NfcTicket("127.0.0.1", self.port, self.certificate.thumbprint("sha1"), "vpxa-nfc", name)

    def wait_until(self, condition: Callable[["Host"], bool], seconds: float = 10) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), seconds)

    def close(self) -> None:
        self.ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _note(self, name: str, value: int) -> None:
        with self.changed:
            setattr(self, name, getattr(self, name) + value)
            self.most_open = max(self.most_open, self.open_sessions)
            self.changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=_Connection(self, raw).run, daemon=True)
            self._threads.append(thread)
            thread.start()


class _Connection:
    def __init__(self, host: Host, raw: socket.socket) -> None:
        self.host = host
        self.how = host.behaviour
        self.sock: Sock = raw
        self.counted = False
        raw.settimeout(20)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        try:
            self._authd()
            self._classic()
            self._serve()
        except Silence:
            with suppress(OSError):
                while not self.host.ended.is_set() and select.select([self.sock], [], [], 0.1):
                    if select.select([self.sock], [], [], 0)[0] and not socket.socket.recv(self.sock, 4096):
                        break
        except OSError:
            pass
        finally:
            if self.counted:
                self.host._note("open_sessions", -1)
            self.sock.close()

    def _silent(self, stage: str) -> None:
        if self.how.silent_at == stage:
            raise Silence

    def _take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self.sock.recv(length - len(data))
            if not more:
                raise ConnectionError("the client went")
            data += more
        return data

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            line += self._take(1)
        return line.decode().removesuffix("\r\n")

    def _tls(self, certificate: Certificate) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.path)
        self.sock = context.wrap_socket(self.sock, server_side=True)

    def _authd(self) -> None:
        self._silent("greeting")
        self.sock.sendall(self.how.greeting)
        self._tls(self.host.certificate)
        word, ticket = self._line().split(" ")
        assert word == "SESSION"
        assert self._line() == "BANNER "
        self._silent("ticket")
        good = ticket in self.host.tickets and ticket not in self.host.used
        self.host.used.append(ticket)
        if not good or self.how.refused_tickets > 0:
            self.how.refused_tickets -= 1
            self.sock.sendall(b"530 Login incorrect.\r\n")
            raise ConnectionError("refused")
        self.sock.sendall(b"220 authd\r\n")
        assert self._line() == "THUMBPRINT_SHA2 PlainText"
        self.sock.sendall(f"200 {self.host.certificate.thumbprint('sha256')}\r\n".encode())
        service = self._line()
        assert service in ("PROXY vpxa-nfcssl", "PROXY vpxa-nfc")
        self.sock.sendall(b"200 Connect ha-nfcssl\r\n")
        self.sock = socket.socket(fileno=self.sock.detach())
        self.sock.settimeout(20)
        if service.endswith("ssl"):
            self._tls(self.how.second_certificate or self.host.certificate)

    def _classic(self) -> None:
        self._silent("classic")

        def expect(kind: int, text: bytes = b"") -> bytes:
            message = self._take(264)
            assert struct.unpack_from("<I", message) == (kind,) and message[4:].startswith(text)
            return message

        expect(43, b"PlainText\0")
        expect(33)
        self.sock.sendall(struct.pack("<I12xI", 36, 1).ljust(264, b"\0"))
        expect(51, struct.pack("<I", 11))
        self.sock.sendall(struct.pack("<II", 51, 11).ljust(264, b"\0"))
        lengths = struct.unpack_from("<II", expect(54), 4)
        self._take(sum(lengths))
        expect(55, struct.pack("<I", 3))
        expect(52)
        self.sock.sendall(struct.pack("<I", 52).ljust(264, b"\0"))

    def _frame(self) -> tuple[int, int, bytes]:
        magic, kind, size, operation = struct.unpack("<4I", self._take(16))
        assert magic == MAGIC and size < 100
        return kind, operation, self._take(size)

    def _reply(self, kind: int, operation: int, payload: bytes) -> None:
        self.sock.sendall(struct.pack("<4I", MAGIC, kind, len(payload), operation) + payload)

    def _refuse(self, operation: int, code: int, text: str) -> None:
        self._reply(1, operation, struct.pack("<I", code) + text.encode())

    def _serve(self) -> None:
        waiting: list[tuple[int, int, int, int]] = []
        left = self.how.cuts.pop(0) if self.how.cuts else None
        order = random.Random(len(self.host.used))
        gather = self.how.gather
        while True:
            while len({one[0] for one in waiting}) < gather or self._more():
                kind, operation, payload = self._frame()
                if kind == 7:
                    waiting += self._note_read(operation, payload)
                    in_flight = len({one[0] for one in waiting})
                    self.host.most_in_flight = max(self.host.most_in_flight, in_flight)
                elif self._answer(kind, operation, payload):
                    return
            gather = 1
            self._silent("read")
            self._trickle()
            if self.how.read_errors:
                self._refuse(waiting[0][0], *self.how.read_errors.pop())
                raise Silence
            operation, offset, total, start = waiting.pop(order.randrange(len(waiting)) if self.how.shuffle else 0)
            length = min(self.how.fragment_bytes, total - start)
            data, opcode = self.host.disk[offset + start : offset + start + length], 1
            if self.how.fastlz and len(short := compress(bytes(data))) < length:
                data, opcode = memoryview(short), FASTLZ
            one = Fragment(MAGIC, 7, 44, operation, opcode, offset, total, start, length, len(data), data)
            if self.how.spoil:
                self.how.spoil(one)
            left = self._send(one, left)

    def _send(self, one: Fragment, left: int | None) -> int | None:
        head = struct.pack(
            "<4I3Q5I", one.magic, one.kind, one.size, one.operation, 0, one.opcode, one.offset,
            one.total, one.start, one.length, one.on_wire, 0,
        )  # fmt: skip
        if left is not None and left < len(one.data):
            self.sock.sendall(head + bytes(one.data[: len(one.data) // 2]))
            raise ConnectionError("cut on demand")
        self.sock.sendall(head)
        self.sock.sendall(one.data)
        self.host._note("fragments", 1)
        self.host._note("sent_bytes", len(one.data))
        return None if left is None else left - len(one.data)

    def _trickle(self) -> None:
        """A byte now and then, of an answer that never ends."""
        while self.how.silent_at == "trickle" and not self.host.ended.wait(0.05):
            self.sock.sendall(struct.pack("<I", MAGIC)[:1])

    def _more(self) -> bool:
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return True
        return bool(select.select([self.sock], [], [], 0)[0])

    def _note_read(self, operation: int, payload: bytes) -> list[tuple[int, int, int, int]]:
        handle, opcode, offset, length, same, again, zero = struct.unpack("<4Q3I", payload)
        assert (handle, opcode, zero) == (0x1234567890AB, FASTLZ if self.how.fastlz else 1, 0)
        assert length == same == again
        assert offset % 512 == length % 512 == 0 and length > 0 and offset + length <= len(self.host.disk)
        self.host.requests.append((offset, length))
        return [(operation, offset, length, start) for start in range(0, length, self.how.fragment_bytes)]

    def _answer(self, kind: int, operation: int, payload: bytes) -> bool:
        """Answers everything but reads; whether the client said goodbye."""
        if kind == 2:
            self._silent("session")
            first, size, count, last = struct.unpack("<4I", payload)
            assert first == last == 0
            self.host.asked.append((size, count))
            if size * count > self.how.most_session_bytes or self.host.open_sessions >= self.how.most_sessions:
                self._refuse(operation, 5, f"Failed to allocate the requested {size * count} bytes")
                return False
            self.counted = True
            self.host._note("open_sessions", 1)
            self._reply(2, operation, struct.pack("<4x2I4x", *self.how.grant))
        elif kind == 4:
            self._silent("open")
            length, file_type, flags = struct.unpack_from("<I12x2I", payload)
            assert (len(payload), file_type, flags) == (60, 2, 0x1E)
            self.host.paths.append(self._take(length).decode())
            if self.how.open_errors:
                self._refuse(operation, *self.how.open_errors.pop())
                return False
            fields = (0x1234567890AB, 2, flags, len(self.host.disk) // 512, 512)
            self._reply(4, operation, struct.pack("<8xQII4xQI20x", *fields))
        elif kind == 3:
            self._reply(kind, operation, payload)
            assert self._take(264)[0] == 4
            self.host._note("goodbyes", 1)
            return True
        else:
            assert kind in (5, 9, 22)
            self._reply(kind, operation, payload)
        return False


def make_certificate(folder: Path, name: str) -> Certificate:
    """A new self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return Certificate(path, certificate.public_bytes(serialization.Encoding.DER))
