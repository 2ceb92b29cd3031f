"""NFC's messages, and the socket they go over.

All integers are little-endian. The facts come from published captures of VDDK 8 against ESXi 8. The payload of an error
reply isn't among them: it is read as a u32 code and a text, and as text alone where that doesn't fit.
"""

import contextlib
import hashlib
import re
import socket
import ssl
import struct
import time
from enum import IntEnum
from typing import Final

from snapferry.readers.errors import NfcError, NfcProtocolError, ThumbprintMismatch
from snapferry.readers.memory_tls import MemoryTls

NOT_NFC: Final = "See what answers on the host's port 902: a proxy, or a version whose NFC isn't known here."

CLASSIC_BYTES: Final = 264
VERSION: Final = 11
FEATURES: Final = 3
MAGIC: Final = 0xA100DA7A
SECTOR_BYTES: Final = 512
DISK: Final = 2
READ_ONLY: Final = 0x1E
READ: Final = 1
READ_FASTLZ: Final = 2 << 32 | READ  # asked for: it may be compressed; answered: this fragment is

HEADER: Final = struct.Struct("<4I")  # magic, type, payload bytes, operation id
OPEN_SESSION: Final = struct.Struct("<4x2I4x")  # buffer bytes, buffer count
OPEN_FILE: Final = struct.Struct("<I12x2I36x")  # path length, file type, flags
OPEN_FILE_REPLY: Final = struct.Struct("<8xQ20xI20x")  # handle, sector size
IO: Final = struct.Struct("<4Q3I")  # handle, opcode, offset, length, length, length, 0
IO_REPLY: Final = struct.Struct("<8x2Q4I4x")  # opcode, offset, request's length, fragment's offset, its length, on wire

_LONGEST_LINE: Final = 1024


class Classic(IntEnum):
    """Messages of 264 bytes that begin a session."""

    SESSION_COMPLETE = 4
    SESSION_PARAMS = 33
    SESSION_PARAMS_REPLY = 36
    HANDSHAKE = 43
    VERSION = 51
    AIO_SESSION_OPEN = 52
    CONNECTION_DATA = 54
    SESSION_FEATURES = 55


class Aio(IntEnum):
    """Frames of an open session."""

    ERROR = 1
    OPEN_SESSION = 2
    CLOSE_SESSION = 3
    OPEN_FILE = 4
    CLOSE_FILE = 5
    IO = 7
    SET_SOCK_OPTS = 9
    SET_RES_POOL = 22


def tls_context() -> ssl.SSLContext:
    """A context that encrypts and leaves the certificate to `Channel.start_tls`, which compares it.

    A host's certificate is signed by vCenter's own authority, or by itself, for a name we may not have used, so the
    usual check would fail or have to be bent. The ticket names that very certificate's thumbprint, and it came over the
    verified session with vCenter: comparing it is stricter than any chain of signatures.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Channel:
    """A connection to a host, every wait of which ends after `timeout_seconds`; `cut` may be called from any thread.

    Raises:
        NfcError: the host can't be reached, ended the connection or stayed silent.
    """

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        self.name = f"{host}:{port}"
        self._timeout = timeout_seconds
        self._tls: MemoryTls | None = None
        try:
            self._sock = socket.create_connection((host, port), timeout=timeout_seconds)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise NfcError(
                f"{self.name} can't be reached: {error}.",
                "Open TCP port 902 from this worker to every ESXi host, and check that the host's name resolves.",
            ) from error

    def start_tls(self, context: ssl.SSLContext, digest: str, thumbprint: str) -> None:
        """Encrypts from here on, and compares the host's certificate.

        Args:
            digest: `sha1` or `sha256`.
            thumbprint: what the certificate's digest has to be, in hexadecimal, with colons or without.

        Raises:
            ThumbprintMismatch: it is another certificate.
        """
        try:
            tls = MemoryTls(self._sock, context)
        except OSError as error:
            raise self._lost(error) from error
        found = hashlib.new(digest, tls.certificate, usedforsecurity=False).hexdigest()
        if found != thumbprint.replace(":", "").lower():
            raise ThumbprintMismatch(
                f"{self.name} showed a certificate with the {digest} thumbprint {found}, not {thumbprint}.",
                "If the host's certificate was just replaced, reconnect the host in vCenter; else look for somebody "
                "in between.",
            )
        self._tls = tls

    def leave_tls(self) -> None:
        """Goes on over the bare socket; the TLS session is abandoned without an alert, as the protocol wants it."""
        if self._tls and self._tls.unread_bytes:
            raise NfcProtocolError(f"{self.name} went on with a TLS session that was to end.", NOT_NFC)
        self._tls = None

    def send(self, data: bytes | bytearray) -> None:
        try:
            (self._tls or self._sock).sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def receive_into(self, view: memoryview, least: int | None = None) -> int:
        """Fills `view`; once some of it has come, all has to within the time, so that a trickle is no way to hold us.

        Args:
            least: return as soon as so many bytes have come, and whatever came along with them.

        Returns:
            How many bytes came.
        """
        receive = (self._tls or self._sock).recv_into
        length = len(view)
        least = length if least is None else least
        came, late = 0, 0.0
        try:
            while True:
                count = receive(view, length - came)
                came += count
                if came >= least:
                    return came
                if not count:
                    raise NfcError(f"{self.name} ended the connection.", "Look at the host's hostd and vpxa logs.")
                now = time.monotonic()
                late = late or now + self._timeout
                if now > late:
                    raise TimeoutError
                view = view[count:]
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, length: int) -> bytes:
        data = bytearray(length)
        self.receive_into(memoryview(data))
        return bytes(data)

    def line(self) -> str:
        """A line of authd's, without its end; byte by byte, since what follows belongs to the next layer."""
        line = bytearray()
        while not line.endswith(b"\n"):
            if len(line) >= _LONGEST_LINE:
                raise NfcProtocolError(f"{self.name} sent a line without an end.", NOT_NFC)
            line += self.receive(1)
        return printable(line)

    def cut(self) -> None:
        """Ends the connection, and every wait on it, at once."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()

    def _lost(self, error: OSError) -> NfcError:
        if isinstance(error, TimeoutError):
            return NfcError(
                f"{self.name} didn't answer within {self._timeout:g} seconds.",
                "Look at the load of the host and of the network.",
            )
        return NfcError(f"The connection to {self.name} failed: {error}.", "Look at the network and the host.")


def classic(kind: Classic, body: bytes = b"") -> bytes:
    """A classic message."""
    return (struct.pack("<I", kind) + body).ljust(CLASSIC_BYTES, b"\0")


def expect_classic(channel: Channel, kind: Classic) -> None:
    """Receives a classic message of this type."""
    (found,) = struct.unpack_from("<I", channel.receive(CLASSIC_BYTES))
    if found != kind:
        raise NfcProtocolError(f"{channel.name} sent message {found} where {kind} was due.", NOT_NFC)


def frame(kind: Aio, operation: int, payload: bytes, extra: bytes = b"") -> bytes:
    """An AIO frame; `extra` isn't counted in its size."""
    return HEADER.pack(MAGIC, kind, len(payload), operation) + payload + extra


def error_reply(payload: bytes) -> tuple[int, str]:
    """Code and text of an error reply; code 0 where it has none."""
    code = int.from_bytes(payload[:4], "little") if len(payload) >= 4 else 0
    if code > 0xFFFF:
        return 0, printable(payload)
    return code, printable(payload[4:])


def printable(data: bytes | bytearray) -> str:
    """Text of a host's, fit for a message: one line of printable ASCII."""
    return re.sub(r"[^ -~]+", " ", data.decode("ascii", "replace"))[:300].rstrip()
