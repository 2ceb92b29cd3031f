"""NFC on the wire: classic messages, AIO frames, and their fields. All integers are little-endian.

Facts: published captures of VDDK 8 against ESXi 8. An error reply's payload isn't among them; here it is a u32 code and
the message as ASCII.
"""

import socket
import ssl
import struct
from enum import IntEnum
from typing import NamedTuple

CLASSIC_BYTES = 264
HEADER = struct.Struct("<4I")  # magic, type, payload bytes, operation id
MAGIC = 0xA100DA7A
VERSION = 11

OPEN_SESSION = struct.Struct("<4I")  # 0, buffer bytes, buffer count, 0
OPEN_FILE = struct.Struct("<6I36x")  # path length, 0, 0, 0, file type, flags
OPEN_FILE_REPLY = struct.Struct("<8xQII4xQ4I8x")  # handle, type, flags, capacity, sector, cylinders, heads, sectors
DDB_GET = struct.Struct("<Q2I")  # handle, key length, 0
DDB_GET_REPLY = struct.Struct("<12xI")  # value length
IO = struct.Struct("<4Q3I")  # handle, opcode, offset, length, length, length, 0
IO_REPLY = struct.Struct("<3Q5I")  # 0, opcode, offset, request length, fragment offset, its length, on the wire, 0

DISK = 2
READ = 1
FASTLZ = 2  # in the high half of an opcode
SECTOR = 512

Socket = socket.socket | ssl.SSLSocket


class Classic(IntEnum):
    """Classic messages: 264 bytes, the type first."""

    SESSION_COMPLETE = 4
    SESSION_PARAMS = 33
    SESSION_PARAMS_REPLY = 36
    HANDSHAKE = 43
    VERSION = 51
    AIO_SESSION_OPEN = 52
    CONNECTION_DATA = 54
    SESSION_FEATURES = 55


class Aio(IntEnum):
    """AIO frames."""

    ERROR = 1
    OPEN_SESSION = 2
    CLOSE_SESSION = 3
    OPEN_FILE = 4
    CLOSE_FILE = 5
    IO = 7
    SET_SOCK_OPTS = 9
    DDB_GET = 11
    SET_RES_POOL = 22


class Code(IntEnum):
    """Codes of error replies."""

    BAD_REQUEST = 3
    NO_MEMORY = 5
    IO_ERROR = 7
    OPEN_FAILED = 13


class Frame(NamedTuple):
    """An AIO frame without its extra data."""

    kind: int
    operation: int
    payload: bytes


class ProtocolError(ConnectionError):
    """The client sent what the protocol doesn't know; the connection ends."""


def receive(sock: Socket, length: int) -> bytes:
    """Exactly so many bytes. Raises ConnectionError where the connection ends before."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise ConnectionError("The client closed the connection.")
        view = view[got:]
    return bytes(data)


def receive_line(sock: Socket) -> str:
    """A line of authd, without its end; byte by byte, as what follows may belong to another TLS session."""
    line = bytearray()
    while not line.endswith(b"\n"):
        line += receive(sock, 1)
        if len(line) > 1024:
            raise ProtocolError("A line of more than 1024 bytes.")
    return line.decode("ascii", "replace").rstrip("\r\n")


def receive_classic(sock: Socket, expected: Classic) -> bytes:
    """A classic message of this type, whole."""
    message = receive(sock, CLASSIC_BYTES)
    (kind,) = struct.unpack_from("<I", message)
    if kind != expected:
        raise ProtocolError(f"Message {kind} where {expected} is due.")
    return message


def classic(kind: Classic, *fields: tuple[int, int]) -> bytes:
    """A classic message with u32 values at these offsets."""
    message = bytearray(CLASSIC_BYTES)
    for offset, value in ((0, int(kind)), *fields):
        struct.pack_into("<I", message, offset, value)
    return bytes(message)


def receive_frame(sock: Socket) -> Frame:
    magic, kind, size, operation = HEADER.unpack(receive(sock, HEADER.size))
    if magic != MAGIC or size > 4096:
        raise ProtocolError(f"A frame with magic {magic:#x} and {size} bytes of payload.")
    return Frame(kind, operation, receive(sock, size))


def frame(kind: int, operation: int, payload: bytes, extra: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, kind, len(payload), operation) + payload + extra


def error(operation: int, code: Code, message: str) -> bytes:
    """An error reply."""
    return frame(Aio.ERROR, operation, struct.pack("<I", code) + message.encode("ascii", "replace"))
