"""One NFC session: opens disks and answers reads in fragments, out of order and interleaved as real hosts do."""

import random
import select
import ssl
import struct
import threading
from collections.abc import Callable

from snapferry.lab.host import nfc_wire as wire
from snapferry.lab.host.chain import View
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.fastlz import compress
from snapferry.lab.host.faults import Counters, Faults
from snapferry.lab.host.nfc_wire import Aio, Classic, Code, Frame, Socket

DEFAULT_BUFFER_BYTES = 64 << 10
DEFAULT_BUFFERS = 4
LARGEST_BUFFER_BYTES = 2 << 20
MOST_BUFFERS = 4
LARGEST_REQUEST_BYTES = 32 << 20
_HEAD_BYTES = wire.HEADER.size + wire.IO_REPLY.size


class NfcMemory:
    """The host's NFC buffer memory, shared by all sessions: 48 MB on ESXi 6 and 7, 96 MB on 8."""

    def __init__(self, limit_bytes: int = 96_000_000) -> None:
        self._free = limit_bytes
        self._lock = threading.Lock()

    def take(self, length: int) -> bool:
        """Whether there was so much left; then it is taken."""
        with self._lock:
            if length > self._free:
                return False
            self._free -= length
            return True

    def give_back(self, length: int) -> None:
        with self._lock:
            self._free += length


class _Read:
    """A read request and those of its fragments that are still to be sent."""

    def __init__(self, frame: Frame, view: View, buffer_bytes: int, rng: random.Random) -> None:
        _, opcode, self.offset, self.length, *_ = wire.IO.unpack(frame.payload)
        self.compress = opcode >> 32 == wire.FASTLZ
        self.operation = frame.operation
        self.view = view
        self.fragments = list(range(0, self.length, buffer_bytes))
        rng.shuffle(self.fragments)


class NfcSession:
    """Serves one connection from the classic handshake to its end.

    Args:
        open_disk: gives the blocks of a path of the ticket's disks; raises HostError.
        fastlz: whether fragments are compressed where the client asks for it.
    """

    def __init__(
        self,
        sock: Socket,
        open_disk: Callable[[str], View],
        memory: NfcMemory,
        faults: Faults,
        tally: Counters,
        rng: random.Random,
        stopping: threading.Event,
        *,
        fastlz: bool = False,
    ) -> None:
        self._fastlz = fastlz
        self._sock = sock
        self._open_disk = open_disk
        self._memory = memory
        self._faults = faults
        self._tally = tally
        self._rng = rng
        self._stopping = stopping
        self._views: dict[int, View] = {}
        self._reads: list[_Read] = []
        self._taken = 0
        self._buffers = DEFAULT_BUFFERS
        self._buffer = memoryview(bytearray())
        cut, stall = faults.take("nfc_cut"), faults.take("nfc_stall")
        self._cut_after = cut.get("after_bytes", 0) if cut else None
        self._stall_after = stall.get("after_bytes", 0) if stall else None
        self._stall_seconds = stall.get("seconds", 1) if stall else 0.0
        self._sent_bytes = 0
        self._open = True
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def run(self) -> None:
        """Serves until the client has closed its session.

        Raises:
            ConnectionError: the connection ended before, or was cut.
        """
        self._handshake()
        try:
            while self._open:
                while len(self._reads) < self._buffers and (not self._reads or self._more_waits()):
                    self._answer(wire.receive_frame(self._sock))
                    if not self._open:
                        break
                if self._reads:
                    self._send_fragment()
        finally:
            self._memory.give_back(self._taken)
        wire.receive_classic(self._sock, Classic.SESSION_COMPLETE)

    def _handshake(self) -> None:
        sock = self._sock
        hello = wire.receive_classic(sock, Classic.HANDSHAKE)
        if not hello[4:].startswith(b"PlainText\0"):
            raise wire.ProtocolError("Only PlainText is spoken here.")
        wire.receive_classic(sock, Classic.SESSION_PARAMS)
        sock.sendall(wire.classic(Classic.SESSION_PARAMS_REPLY, (16, 1)))
        wire.receive_classic(sock, Classic.VERSION)
        sock.sendall(wire.classic(Classic.VERSION, (4, wire.VERSION)))
        message = wire.receive_classic(sock, Classic.CONNECTION_DATA)
        name_length, operation_length = struct.unpack_from("<2I", message, 4)
        if name_length + operation_length > 1024:
            raise wire.ProtocolError("Names of more than 1024 bytes.")
        wire.receive(sock, name_length + operation_length)
        wire.receive_classic(sock, Classic.SESSION_FEATURES)
        wire.receive_classic(sock, Classic.AIO_SESSION_OPEN)
        sock.sendall(wire.classic(Classic.AIO_SESSION_OPEN))

    def _more_waits(self) -> bool:
        """Whether the client has sent more requests already."""
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        return bool(self._poll.poll(0))

    def _answer(self, frame: Frame) -> None:
        """Answers a request at once, or notes it where it is a read."""
        operation, payload = frame.operation, frame.payload
        match frame.kind:
            case Aio.OPEN_SESSION:
                reply = self._open_session(operation, payload)
            case Aio.SET_SOCK_OPTS:
                reply = wire.frame(frame.kind, operation, struct.pack("<3I", 1 << 20, 1 << 20, 1))
            case Aio.SET_RES_POOL:
                reply = wire.frame(frame.kind, operation, payload)
            case Aio.OPEN_FILE:
                reply = self._open_file(operation, payload)
            case Aio.DDB_GET:
                reply = self._ddb_get(operation, payload)
            case Aio.IO:
                reply = self._note_read(frame)
            case Aio.CLOSE_FILE:
                self._views.pop(struct.unpack("<Q", payload)[0], None)
                reply = wire.frame(frame.kind, operation, payload)
            case Aio.CLOSE_SESSION:
                reply = wire.frame(frame.kind, operation, payload)
                self._open = False
            case _:
                reply = wire.error(operation, Code.BAD_REQUEST, f"Message {frame.kind} isn't known.")
        if reply:
            self._sock.sendall(reply)

    def _open_session(self, operation: int, payload: bytes) -> bytes:
        _, size, count, _ = wire.OPEN_SESSION.unpack(payload)
        size, count = size or DEFAULT_BUFFER_BYTES, count or DEFAULT_BUFFERS
        fits = size <= LARGEST_BUFFER_BYTES and size % DEFAULT_BUFFER_BYTES == 0 and count <= MOST_BUFFERS
        if not fits or self._faults.take("nfc_allocation") or not self._memory.take(size * count):
            return wire.error(operation, Code.NO_MEMORY, f"Failed to allocate the requested {size * count} bytes")
        self._memory.give_back(self._taken)
        self._taken = size * count
        self._buffers = count
        self._buffer = memoryview(bytearray(_HEAD_BYTES + size))
        return wire.frame(Aio.OPEN_SESSION, operation, bytes(wire.OPEN_SESSION.size))

    def _open_file(self, operation: int, payload: bytes) -> bytes:
        length, _, _, _, file_type, flags = wire.OPEN_FILE.unpack(payload)
        if length > 4096:
            raise wire.ProtocolError(f"A path of {length} bytes.")
        path = wire.receive(self._sock, length).decode("utf-8", "replace")
        if not self._buffer or file_type != wire.DISK or not flags & 0x4:
            return wire.error(operation, Code.BAD_REQUEST, "Only disks, read-only, inside a session.")
        try:
            if self._faults.take("nfc_open"):
                raise HostError("locked", f"Failed to lock the file {path}.")
            view = self._open_disk(path)
        except HostError as error:
            return wire.error(operation, Code.OPEN_FAILED, f"NfcFssrvrOpen: Failed to open '{path}': {error}")
        handle = self._rng.getrandbits(48) | 1
        self._views[handle] = view
        geometry = [int(view.ddb(f"geometry.{name}") or 0) for name in ("cylinders", "heads", "sectors")]
        fields = (handle, wire.DISK, flags, view.capacity_bytes, wire.SECTOR, *geometry)
        return wire.frame(Aio.OPEN_FILE, operation, wire.OPEN_FILE_REPLY.pack(*fields))

    def _ddb_get(self, operation: int, payload: bytes) -> bytes:
        handle, length, _ = wire.DDB_GET.unpack(payload)
        if length > 4096:
            raise wire.ProtocolError(f"A key of {length} bytes.")
        key = wire.receive(self._sock, length).decode("ascii", "replace")
        view = self._views.get(handle)
        value = ((view.ddb(key) if view else None) or "").encode("ascii")
        return wire.frame(Aio.DDB_GET, operation, wire.DDB_GET_REPLY.pack(len(value)), value)

    def _note_read(self, frame: Frame) -> bytes:
        handle, opcode, offset, length, *_ = wire.IO.unpack(frame.payload)
        self._tally.request()
        view = self._views.get(handle)
        if view is None or opcode & 0xFFFFFFFF != wire.READ:
            return wire.error(frame.operation, Code.BAD_REQUEST, "Only reads of an open disk.")
        # The protocol's readers may ask for whole sectors only, and never for more than the disk has.
        if offset % wire.SECTOR or length % wire.SECTOR or not length or offset + length > view.capacity_bytes:
            return wire.error(frame.operation, Code.IO_ERROR, f"{length} bytes at {offset} aren't on the disk.")
        if length > LARGEST_REQUEST_BYTES:
            return wire.error(frame.operation, Code.NO_MEMORY, f"Failed to allocate the requested {length} bytes")
        if delay := self._faults.value("nfc_delay", "seconds"):
            self._stopping.wait(delay)
        self._reads.append(_Read(frame, view, len(self._buffer) - _HEAD_BYTES, self._rng))
        return b""

    def _send_fragment(self) -> None:
        """Sends some fragment of some read."""
        read = self._rng.choice(self._reads)
        start = read.fragments.pop()
        if not read.fragments:
            self._reads.remove(read)
        size = min(len(self._buffer) - _HEAD_BYTES, read.length - start)
        reply = self._buffer[: _HEAD_BYTES + size]
        try:
            if self._faults.take("nfc_read"):
                raise OSError("the device reports an error")
            read.view.read(read.offset + start, reply[_HEAD_BYTES:])
            read.view.check()
        except (HostError, OSError) as error:
            if read in self._reads:
                self._reads.remove(read)
            self._sock.sendall(wire.error(read.operation, Code.IO_ERROR, f"Read failed: {error}"))
            return
        wire.HEADER.pack_into(reply, 0, wire.MAGIC, Aio.IO, wire.IO_REPLY.size, read.operation)
        opcode, on_wire = wire.READ, size
        if self._fastlz and read.compress and len(short := compress(bytes(reply[_HEAD_BYTES:]))) < size:
            opcode, on_wire = wire.FASTLZ << 32 | wire.READ, len(short)
            reply = reply[: _HEAD_BYTES + on_wire]
            reply[_HEAD_BYTES:] = short
        fields = (0, opcode, read.offset, read.length, start, size, on_wire, 0)
        wire.IO_REPLY.pack_into(reply, wire.HEADER.size, *fields)
        self._sent_bytes += on_wire
        if self._stall_after is not None and self._sent_bytes > self._stall_after:
            self._stall_after = None
            self._stopping.wait(self._stall_seconds)
        if self._cut_after is not None and self._sent_bytes > self._cut_after:
            self._sock.sendall(reply[: len(reply) // 2])
            raise ConnectionAbortedError("Cut on demand.")
        self._sock.sendall(reply)
        self._tally.sent(read.view.label, on_wire)
