"""Reads a disk of a snapshot, or of a VM that is off, over NFC."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Event, Lock, Thread
from typing import Final

from snapferry.errors import SourceError, Stopped
from snapferry.readers.errors import (
    DiskInUse,
    NfcAllocationError,
    NfcError,
    NfcProtocolError,
)
from snapferry.readers.nfc_connection import NfcConnection, Piece, Session
from snapferry.readers.nfc_wire import SECTOR_BYTES, Channel
from snapferry.seams import Block
from snapferry.transfer import BadExtents, Extents
from snapferry.vsphere.models import NfcTicket

BACKOFF_SECONDS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_LARGEST_BUFFER_BYTES: Final = 2 << 20  # four such buffers are the largest session that hosts were seen to take
_MOST_BUFFERS: Final = 4
_BUFFER_UNIT_BYTES: Final = 64 << 10
_LOOK_SECONDS: Final = 0.2
_GOODBYE_SECONDS: Final = 2.0


class NfcReader:
    """One disk over several NFC connections, each with several requests in flight.

    Bytes are received right where they belong, into buffers that are used again. A connection that ends is opened anew
    with a new ticket, and only what it still owed is asked for again. A host that runs out of buffer memory is asked
    again with fewer connections, then with small buffers.

    Args:
        tickets: gives a new ticket for the disk; called once a connection, never by two threads at once.
        path: of the disk's descriptor, `[san1] web01/web01-000002.vmdk`; its whole chain is read.
        capacity_bytes: of the disk.
        connections: how many to open at most.
        in_flight: requests on each at most; hosts were seen to take 4.
        request_bytes: bytes of a request; through vCenter 2 MiB is the most that works.
        timeout_seconds: how long any single answer may take.
        plain: NFC without encryption; the disk's bytes can be read and changed on the way.
        compress: lets the host send FastLZ where that is shorter; it is expanded at some MB/s, for slow links only.
        backoff_seconds: the waits between attempts of a connection that gets nowhere; behind the last it is given up.
    """

    def __init__(
        self,
        tickets: Callable[[], NfcTicket],
        path: str,
        capacity_bytes: int,
        *,
        connections: int = 3,
        in_flight: int = 4,
        request_bytes: int = 2 << 20,
        timeout_seconds: float = 30,
        plain: bool = False,
        compress: bool = False,
        backoff_seconds: Sequence[float] = BACKOFF_SECONDS,
    ) -> None:
        if request_bytes <= 0 or request_bytes % SECTOR_BYTES or min(connections, in_flight) < 1:
            raise ValueError(f"{connections} connections with {in_flight} requests of {request_bytes} bytes")
        self._tickets = tickets
        self._ticket_lock = Lock()
        self._path = path
        self._capacity = capacity_bytes
        self._connections = connections
        self._in_flight = in_flight
        self._request_bytes = request_bytes
        self._timeout = timeout_seconds
        self._plain = plain
        self._compress = compress
        self._backoff = tuple(backoff_seconds)
        self._small_buffers = False
        self._work: _Work | None = None

    @property
    def capacity_bytes(self) -> int:
        return self._capacity

    def read(self, extents: Extents, stop: Event) -> Iterator[Block]:
        """The blocks of `extents`, as they come. One read at a time.

        Raises:
            BadExtents: they aren't whole sectors of the disk.
            NfcError: no connection got anywhere, after all attempts; or the host doesn't speak NFC.
            DiskNotOpened: the host doesn't open the disk.
            ThumbprintMismatch: the host isn't the one that vCenter named.
            Stopped: `stop` was set, or the reader closed.
        """
        if (
            extents.end > self._capacity
            or (extents.starts % SECTOR_BYTES).any()
            or (extents.lengths % SECTOR_BYTES).any()
        ):
            raise BadExtents(f"{self._path}: {extents!r} aren't whole sectors of a disk of {self._capacity} bytes.")
        pieces = deque(zip(*(array.tolist() for array in extents.split(self._request_bytes)), strict=True))
        count = min(self._connections, -(-len(pieces) // self._in_flight))
        # one buffer more than can be in flight on each connection: it holds what waits for the writer
        self._work = work = _Work(pieces, count * (self._in_flight + 1), self._request_bytes)
        threads = [Thread(target=self._run, args=(work,), name=f"nfc-{one}", daemon=True) for one in range(count)]
        work.active = count
        try:
            for thread in threads:
                thread.start()
            while piece := work.next_complete(stop):
                yield Block(piece.offset, piece.length, piece.data)
                work.give_back(piece)
            for thread in threads:
                thread.join(_GOODBYE_SECONDS)
        finally:
            work.end()

    def close(self) -> None:
        """Ends what is being read."""
        if self._work:
            self._work.end()

    def _run(self, work: "_Work") -> None:
        """A connection's thread."""
        try:
            self._keep_connected(work)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that reads
            work.fail(error)

    def _keep_connected(self, work: "_Work") -> None:
        """Serves the work over one connection after the other, until there is none or no attempt is left."""
        failures = 0
        while not work.finished:
            landed = 0
            try:
                connection = self._connect(work)
                try:
                    self._exchange(connection, work)
                finally:
                    landed = connection.landed_bytes
                    work.again(connection.unanswered())
                    connection.close()
            except NfcProtocolError:
                raise
            except (NfcError, DiskInUse, SourceError) as error:
                failures = 1 if landed else failures + 1
                if isinstance(error, NfcAllocationError):
                    if work.leave():
                        self._connections = max(1, self._connections - 1)
                        return
                    self._small_buffers = True
                if failures > len(self._backoff):
                    if work.leave():
                        return
                    raise
                work.ended.wait(self._backoff[failures - 1])

    def _connect(self, work: "_Work") -> NfcConnection:
        with self._ticket_lock:
            ticket = self._tickets()
        ask = None
        if not self._small_buffers:
            size = min(-(-self._request_bytes // _BUFFER_UNIT_BYTES) * _BUFFER_UNIT_BYTES, _LARGEST_BUFFER_BYTES)
            ask = Session(size, min(self._in_flight, _MOST_BUFFERS))
        return NfcConnection(
            ticket,
            self._path,
            work.attach,
            ask=ask,
            timeout_seconds=self._timeout,
            plain=self._plain,
            compress=self._compress,
        )

    def _exchange(self, connection: NfcConnection, work: "_Work") -> None:
        """Keeps requests in flight and receives their answers until nothing is left to read."""
        while True:
            while connection.has_room and (piece := work.take(wait=not connection.busy)):
                connection.request(piece)
            if not connection.busy:
                return
            if piece := connection.receive():
                work.complete(piece)


class _Work:
    """What a read's threads share: the pieces to read, those that are complete, and the buffers.

    A piece is with exactly one holder at any time: waiting, a connection, complete, or the reading thread.
    """

    def __init__(self, unread: deque[tuple[int, int]], buffers: int, buffer_bytes: int) -> None:
        self._unread = unread
        self._again: deque[Piece] = deque()
        self._complete: deque[Piece] = deque()
        self._left = len(unread)
        self._to_make = buffers
        self._buffer_bytes = buffer_bytes
        self._free: list[memoryview] = []
        self._channels: list[Channel] = []
        self._error: Exception | None = None
        lock = Lock()
        self._arrived = Condition(lock)
        self._room = Condition(lock)
        self.ended = Event()
        self.active = 0
        """Connections that are served."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to ask for."""
        return self.ended.is_set() or self._left == 0

    def take(self, *, wait: bool) -> Piece | None:
        """A piece to read. None where there is none right now; with `wait`, where none will come any more."""
        with self._room:
            while not self.finished:
                if self._again:
                    return self._again.popleft()
                if self._unread and (buffer := self._buffer()) is not None:
                    return Piece(*self._unread.popleft(), buffer)
                if not wait:
                    return None
                self._room.wait(1.0)
        return None

    def complete(self, piece: Piece) -> None:
        """Hands a complete piece to the reading thread."""
        with self._arrived:
            self._complete.append(piece)
            self._left -= 1
            self._arrived.notify()
            if self._left == 0:
                self._room.notify_all()

    def again(self, pieces: list[Piece]) -> None:
        """Puts pieces back of which something is missing."""
        with self._room:
            self._again.extend(pieces)
            self._room.notify_all()

    def next_complete(self, stop: Event) -> Piece | None:
        """Waits for a piece; None where all have been handed over."""
        with self._arrived:
            while True:
                if stop.is_set():
                    raise Stopped("The read was told to stop.")
                if self._complete:
                    return self._complete.popleft()
                if self._error:
                    raise self._error
                if self.ended.is_set():
                    raise Stopped("The reader was closed.")
                if self._left == 0:
                    return None
                self._arrived.wait(_LOOK_SECONDS)

    def give_back(self, piece: Piece) -> None:
        """Takes the buffer of a piece that has been used."""
        with self._room:
            self._free.append(piece.buffer)
            self._room.notify()

    def attach(self, channel: Channel) -> None:
        """Notes a channel, to cut it at the end."""
        with self._room:
            self._channels.append(channel)
        if self.ended.is_set():
            channel.cut()

    def leave(self) -> bool:
        """Whether a thread may leave its part to the others; the last one may not."""
        with self._room:
            if self.active == 1:
                return False
            self.active -= 1
            return True

    def fail(self, error: Exception) -> None:
        """Ends the read with an error; the first one counts."""
        with self._arrived:
            self._error = self._error or error
            self._arrived.notify()

    def end(self) -> None:
        """Ends every thread's wait and every connection."""
        self.ended.set()
        with self._room:
            self._room.notify_all()
            channels = list(self._channels)
        for channel in channels:
            with contextlib.suppress(OSError):
                channel.cut()

    def _buffer(self) -> memoryview | None:
        if self._free:
            return self._free.pop()
        if self._to_make == 0:
            return None
        self._to_make -= 1
        return memoryview(bytearray(self._buffer_bytes))
