"""One NFC connection with one disk open on it: how it comes about, and how reads are asked for and answered."""

import contextlib
import ssl
import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

from snapferry.readers import fastlz
from snapferry.readers import nfc_wire as wire
from snapferry.readers.errors import (
    DiskInUse,
    DiskNotOpened,
    NfcAllocationError,
    NfcError,
    NfcProtocolError,
    TicketRefused,
)
from snapferry.readers.nfc_wire import Aio, Channel, Classic
from snapferry.vsphere.models import NfcTicket

_NO_MEMORY: Final = 5  # "received NFC error 5 from server: Failed to allocate the requested … bytes"
_CLIENT: Final = b"snapferry"
_PURPOSE: Final = b"nbdmode"
_LARGEST_PAYLOAD: Final = 4096


class Session(NamedTuple):
    """Buffers of a session: what the host holds, and so what may be in flight.

    Attributes:
        buffer_bytes: how long a fragment may be.
        buffers: how many requests may be in flight.
    """

    buffer_bytes: int
    buffers: int


DEFAULT_SESSION: Final = Session(64 << 10, 4)


class Piece:
    """A run of the disk that is read into a buffer, and which of its bytes have come."""

    def __init__(self, offset: int, length: int, buffer: memoryview) -> None:
        self.offset = offset
        self.length = length
        self.buffer = buffer
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def data(self) -> memoryview:
        return self.buffer[: self.length]

    @property
    def complete(self) -> bool:
        return self._starts == [0] and self._ends == [self.length]

    def missing(self) -> list[tuple[int, int]]:
        """(start, length) of what hasn't come yet, relative to the piece."""
        begins, finishes = [0, *self._ends], [*self._starts, self.length]
        return [(begin, end - begin) for begin, end in zip(begins, finishes, strict=True) if end > begin]

    def takes(self, start: int, length: int) -> bool:
        """Whether none of these bytes has come before."""
        if not self._ends or start >= self._ends[-1]:  # as a rule they come in order
            return True
        place = bisect_right(self._starts, start)
        after = place == 0 or self._ends[place - 1] <= start
        return after and (place == len(self._starts) or start + length <= self._starts[place])

    def land(self, start: int, length: int) -> None:
        """Notes that these bytes are in the buffer; `takes` has been asked before."""
        if self._ends and self._ends[-1] == start:
            self._ends[-1] += length
            return
        place, end = bisect_right(self._starts, start), start + length
        if place and self._ends[place - 1] == start:
            place -= 1
            self._ends[place] = end
        else:
            self._starts.insert(place, start)
            self._ends.insert(place, end)
        if place + 1 < len(self._starts) and self._starts[place + 1] == end:
            del self._starts[place + 1], self._ends[place]


class _Operation:
    """A request on the wire: a run of a piece."""

    def __init__(self, piece: Piece, start: int, length: int) -> None:
        self.piece = piece
        self.start = start
        self.length = length
        self.left = length


class NfcConnection:
    """A disk that is open for reading.

    Args:
        attach: called with the channel as soon as it is connected, so that somebody else can cut it.
        ask: the buffers to ask for; None for the host's defaults.
        compress: whether the host may compress what it sends.

    Raises:
        ThumbprintMismatch: the host isn't the one that vCenter named.
        TicketRefused: the ticket was used before, or is too old.
        NfcAllocationError: the host has no memory for such a session.
        DiskNotOpened: the host doesn't open the disk.
        NfcError: another failure.
    """

    def __init__(
        self,
        ticket: NfcTicket,
        path: str,
        attach: Callable[[Channel], None],
        *,
        ask: Session | None,
        timeout_seconds: float,
        plain: bool,
        compress: bool,
    ) -> None:
        self._opcode = wire.READ_FASTLZ if compress else wire.READ
        self._channel = Channel(ticket.host, ticket.port, timeout_seconds)
        self._next_operation = 0
        self._operations: dict[int, _Operation] = {}
        self._head = memoryview(bytearray(wire.HEADER.size + wire.IO_REPLY.size))
        self.landed_bytes = 0
        try:
            attach(self._channel)
            _authenticate(self._channel, ticket, wire.tls_context(), plain=plain)
            _greet(self._channel)
            self.session = self._open_session(ask)
            self._handle = self._open_disk(path)
        except BaseException:
            self._channel.close()
            raise

    @property
    def busy(self) -> bool:
        """Whether a reply is due."""
        return bool(self._operations)

    @property
    def has_room(self) -> bool:
        """Whether one more request may be in flight."""
        return len(self._operations) < self.session.buffers

    def request(self, piece: Piece) -> None:
        """Asks for all of the piece that hasn't come yet."""
        requests = bytearray()
        for start, length in piece.missing():
            payload = wire.IO.pack(self._handle, self._opcode, piece.offset + start, length, length, length, 0)
            self._operations[self._next_operation] = _Operation(piece, start, length)
            requests += self._frame(Aio.IO, payload)
        self._channel.send(requests)

    def receive(self) -> Piece | None:
        """Receives one fragment of some request, into its place.

        Returns:
            The piece, where it is complete now.

        Raises:
            NfcProtocolError: the host sent what wasn't asked for.
            NfcError: the host couldn't read, the connection ended, or nothing came in time.
        """
        kind, size, number, came = self._receive_head(Aio.IO, wire.IO_REPLY.size)
        if kind != Aio.IO or size != wire.IO_REPLY.size:
            raise self._nonsense(f"a frame of type {kind} with {size} bytes where a read's answer was due")
        if came < size:
            self._channel.receive_into(self._head[wire.HEADER.size + came :])
        opcode, offset, total, start, length, on_wire = wire.IO_REPLY.unpack_from(self._head, wire.HEADER.size)
        operation = self._operations.get(number)
        if operation is None:
            raise self._nonsense(f"an answer to request {number}, which isn't open")
        piece, place = operation.piece, operation.start + start
        if opcode not in (wire.READ, self._opcode):
            raise self._nonsense(f"a compressed fragment (operation {opcode:#x}), which wasn't asked for")
        if offset != piece.offset + operation.start or total != operation.length:
            raise self._nonsense(f"{total} bytes at offset {offset} as answer to another request")
        if not length or start + length > total or not piece.takes(place, length):
            raise self._nonsense(f"a fragment of {length} bytes at {start} that doesn't fit its request of {total}")
        self._receive_data(piece.buffer[place : place + length], on_wire, compressed=opcode == wire.READ_FASTLZ)
        piece.land(place, length)
        self.landed_bytes += length
        operation.left -= length
        if not operation.left:
            del self._operations[number]
        return piece if piece.complete else None

    def _receive_data(self, target: memoryview, on_wire: int, *, compressed: bool) -> None:
        """Receives a fragment's bytes into their place."""
        if on_wire > fastlz.longest(len(target)) if compressed else on_wire != len(target):
            raise self._nonsense(f"a fragment of {len(target)} bytes that has {on_wire} on the wire")
        if not compressed:
            self._channel.receive_into(target)
            return
        try:
            fastlz.decompress(self._channel.receive(on_wire), target)
        except fastlz.BadFastLz as error:
            raise self._nonsense(f"a compressed fragment that is damaged: {error}") from error

    def unanswered(self) -> list[Piece]:
        """The pieces of which something is still due; they are somebody else's from now on."""
        pieces = {id(operation.piece): operation.piece for operation in self._operations.values()}
        self._operations.clear()
        return list(pieces.values())

    def close(self) -> None:
        """Ends the session; politely where no answer is due, so that the host frees its memory at once."""
        with contextlib.suppress(NfcError):
            if not self._operations:
                self._call(Aio.CLOSE_FILE, struct.pack("<Q", self._handle))
                self._call(Aio.CLOSE_SESSION, bytes(4))
                self._channel.send(wire.classic(Classic.SESSION_COMPLETE))
        self._channel.close()

    def _open_session(self, ask: Session | None) -> Session:
        reply = self._call(Aio.OPEN_SESSION, wire.OPEN_SESSION.pack(*(ask or (0, 0))))
        self._call(Aio.SET_SOCK_OPTS, bytes(12))
        self._call(Aio.SET_RES_POOL, struct.pack("<I", 1))
        # hosts were seen to answer with zeros and to use what was asked for; numbers, where they come, count
        buffer_bytes, buffers = wire.OPEN_SESSION.unpack_from(reply) if len(reply) >= 16 else (0, 0)
        granted = ask or DEFAULT_SESSION
        return Session(buffer_bytes or granted.buffer_bytes, min(buffers or granted.buffers, granted.buffers))

    def _open_disk(self, path: str) -> int:
        name = path.encode()
        reply = self._call(Aio.OPEN_FILE, wire.OPEN_FILE.pack(len(name), wire.DISK, wire.READ_ONLY), name)
        if len(reply) < wire.OPEN_FILE_REPLY.size:
            raise self._nonsense(f"{len(reply)} bytes as answer to opening a disk")
        handle, sector_bytes = wire.OPEN_FILE_REPLY.unpack_from(reply)
        if sector_bytes != wire.SECTOR_BYTES:
            raise DiskNotOpened(f"{path} has sectors of {sector_bytes} bytes; only {wire.SECTOR_BYTES} can be read.")
        return int(handle)

    def _call(self, kind: Aio, payload: bytes, extra: bytes = b"") -> bytes:
        """Sends one message and returns the payload of its answer."""
        number = self._next_operation
        self._channel.send(self._frame(kind, payload, extra))
        answer, size, answered, _ = self._receive_head(kind)
        if answer != kind or answered != number or size > _LARGEST_PAYLOAD:
            raise self._nonsense(f"a frame of type {answer} with {size} bytes where the answer to {kind.name} was due")
        return self._channel.receive(size)

    def _frame(self, kind: Aio, payload: bytes, extra: bytes = b"") -> bytes:
        number = self._next_operation
        self._next_operation = (number + 1) & 0xFFFFFFFF
        return wire.frame(kind, number, payload, extra)

    def _receive_head(self, due: Aio, along: int = 0) -> tuple[int, int, int, int]:
        """Receives the next frame's header; an error reply becomes the error that it stands for.

        Args:
            along: bytes of the payload that may come along with it, behind it in `_head`.

        Returns:
            Type, payload's size and operation of the frame, and how many bytes of the payload came along.
        """
        came = self._channel.receive_into(self._head[: wire.HEADER.size + along], wire.HEADER.size) - wire.HEADER.size
        magic, kind, size, number = wire.HEADER.unpack_from(self._head)
        if magic != wire.MAGIC:
            raise self._nonsense(f"a frame that begins with {magic:#010x}")
        if kind == Aio.ERROR:
            if size > _LARGEST_PAYLOAD:
                raise self._nonsense(f"an error reply of {size} bytes")
            here = bytes(self._head[wire.HEADER.size :][: min(came, size)])
            raise self._refusal(due, *wire.error_reply(here + self._channel.receive(size - len(here))))
        return kind, size, number, came

    def _refusal(self, due: Aio, code: int, text: str) -> NfcError | DiskNotOpened:
        name, says = self._channel.name, f"NFC error {code}: {text or 'no reason given'}"
        # a session's only arguments are its buffers, so a refused one is a matter of memory whatever the code
        if code == _NO_MEMORY or "allocate" in text or due == Aio.OPEN_SESSION:
            return NfcAllocationError(
                f"{name} has no NFC buffer memory left ({says}).",
                "Copy fewer disks of this host at once; other backups and migrations use the same memory.",
            )
        if due != Aio.OPEN_FILE:
            return NfcError(f"{name} refused {due.name} ({says}).", "Look at the host's hostd log.")
        if any(word in text.lower() for word in ("lock", "busy", "in use")):
            return DiskInUse(
                f"{name} doesn't open the disk, because it is in use ({says}).",
                "Only a snapshot's disk, or one of a VM that is off, can be read; look which VM or backup holds it.",
            )
        return DiskNotOpened(
            f"{name} doesn't open the disk ({says}).",
            "Check that the file is there and that no running VM writes to it, and the privilege Provisioning: "
            "Allow read-only disk access.",
        )

    def _nonsense(self, what: str) -> NfcProtocolError:
        return NfcProtocolError(
            f"{self._channel.name} sent {what}.", "Report the host's version and build: its NFC isn't known here."
        )


def _authenticate(channel: Channel, ticket: NfcTicket, context: ssl.SSLContext, *, plain: bool) -> None:
    """authd's part: the first TLS session, the ticket, and the second TLS session unless `plain`."""
    _expect(channel, "220", "its greeting")
    channel.start_tls(context, "sha1", ticket.ssl_thumbprint)
    try:
        channel.send(f"SESSION {ticket.session_id}\r\nBANNER \r\n".encode())
        _expect(channel, "220", "the ticket")
        channel.send(b"THUMBPRINT_SHA2 PlainText\r\n")
        thumbprint = _expect(channel, "200", "THUMBPRINT_SHA2")
        channel.send(f"PROXY {ticket.service}{'' if plain else 'ssl'}\r\n".encode())
        _expect(channel, "200", f"PROXY to {ticket.service}")
    except NfcProtocolError:
        raise
    except NfcError as error:
        # a host that doesn't like a ticket may just close
        raise TicketRefused(error.cause, error.next_step) from error
    channel.leave_tls()
    if not plain:
        # the first session, whose end is proven, vouches for this thumbprint
        channel.start_tls(context, "sha256", thumbprint)


def _expect(channel: Channel, code: str, what: str) -> str:
    """Receives a line of authd's and returns what stands behind its code."""
    found, _, text = channel.line().partition(" ")
    if found != code:
        raise NfcError(
            f"{channel.name} answered {found} {text} to {what}.",
            "A ticket is good once and for a short time; look at the host's load, and at its lockdown mode.",
        )
    return text.strip()


def _greet(channel: Channel) -> None:
    """The classic messages; from their end on, AIO frames are spoken."""
    channel.send(wire.classic(Classic.HANDSHAKE, b"PlainText") + wire.classic(Classic.SESSION_PARAMS))
    wire.expect_classic(channel, Classic.SESSION_PARAMS_REPLY)
    channel.send(wire.classic(Classic.VERSION, struct.pack("<I", wire.VERSION)))
    wire.expect_classic(channel, Classic.VERSION)
    names = wire.classic(Classic.CONNECTION_DATA, struct.pack("<2I", len(_CLIENT), len(_PURPOSE)))
    features = wire.classic(Classic.SESSION_FEATURES, struct.pack("<I", wire.FEATURES))
    channel.send(names + _CLIENT + _PURPOSE + features + wire.classic(Classic.AIO_SESSION_OPEN))
    wire.expect_classic(channel, Classic.AIO_SESSION_OPEN)
