"""Reads a disk through its files: over HTTPS, or where its datastore is mounted."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from itertools import pairwise
from threading import Event
from typing import Final, NamedTuple, Self, TypeVar

from snapferry.errors import Stopped
from snapferry.readers.daemon_threads import ANSWER_SECONDS, DaemonThreads, result_of
from snapferry.readers.errors import DatastoreSilent
from snapferry.seams import Block
from snapferry.transfer import Extents
from snapferry.vmdk import ZEROS, Chain, ChainError, Folder, Runs, open_chain

_GAP_BYTES: Final = 64 << 10
"""So much that wasn't asked for is read and thrown away, rather than sent another request.

Change tracking's own grain. Over TLS on loopback, four at once, a request took as long as 250 KiB: 250 µs. At 1 Gbit/s
that is the time of 31 KB, and a round trip comes on top."""
_CLOSE_SECONDS: Final = 0.5

T = TypeVar("T")


class DatastoreReader:
    """One disk as its chain of files has it, by several requests at once.

    Requests follow the files' order and are handed over in it, and go over small gaps. Buffers are used again, and
    bytes are received right into them. A mount that hangs holds up neither a stop, nor closing, nor the process's exit.

    Args:
        chain: closed with the reader.
        requests: at once.
        request_bytes: the longest range of one.
        answer_seconds: how long the datastore may give no answer.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        requests: int = 4,
        request_bytes: int = 2 << 20,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._chain = chain
        self._requests = requests
        self._request_bytes = request_bytes
        self._answer_seconds = answer_seconds

    @classmethod
    def open(
        cls, folder: Folder, path: str, capacity_bytes: int, stop: Event, *, answer_seconds: float = ANSWER_SECONDS
    ) -> Self:
        """A reader of the disk whose descriptor lies at `path`, with or without `[datastore] ` in front.

        Raises:
            VmdkError: the chain can't be read, or it is a disk of another capacity.
            RouteFailed: a file can't be read.
            Stopped: `stop` was set.
        """
        threads = DaemonThreads(1, "datastore-open")
        opening = threads.submit(open_chain, folder, path.partition("] ")[2] or path)
        threads.end(drop=False)
        try:
            chain = result_of(opening, stop, folder.answers, answer_seconds)
        except (Stopped, DatastoreSilent):
            opening.add_done_callback(_close_late)
            raise
        if chain.capacity_bytes != capacity_bytes:
            chain.close()
            raise ChainError(f"{path} is a disk of {chain.capacity_bytes} bytes, not of {capacity_bytes}.")
        return cls(chain, answer_seconds=answer_seconds)

    @property
    def capacity_bytes(self) -> int:
        return self._chain.capacity_bytes

    def read(self, extents: Extents, stop: Event) -> Iterator[Block]:
        """The blocks of `extents`, in the order in which the files have them. One read at a time.

        Raises:
            BadExtents: they reach past the disk's end.
            RouteFailed: a file can't be read.
            VmdkError: a table says what can't be.
            Stopped: `stop` was set, or the reader was closed.
        """
        ahead: deque[tuple[Future[None], _Request]] = deque()
        # one more than can be on its way: it holds what waits for the writer
        free = [memoryview(bytearray(self._request_bytes)) for _ in range(2 * self._requests + 1)]
        threads = DaemonThreads(self._requests, "datastore")
        plans = self._chain.plans(extents)
        complete = False
        try:
            # tables are read for a plan, by as many requests as that needs
            while plan := self._result(threads.submit(next, plans, None), stop):
                pieces, edges = plan.in_requests(self._request_bytes, _GAP_BYTES)
                for first, behind in pairwise(edges.tolist()):
                    if stop.is_set():
                        raise Stopped("The read was told to stop.")
                    request = _Request.of(pieces, first, behind)
                    if request.file == ZEROS:
                        yield from request.blocks(None)
                        continue
                    if not free:
                        yield from self._next(ahead, free, stop)
                    request = request._replace(buffer=free.pop())
                    ahead.append((threads.submit(self._fill, request), request))
            while ahead:
                yield from self._next(ahead, free, stop)
            complete = True
        finally:
            if not complete:
                self._abort()
            threads.end(drop=True)

    def close(self) -> None:
        """Ends what is being read. On a mount that hangs the files are closed when it comes back."""
        self._abort()
        threads = DaemonThreads(1, "datastore-close")
        closing = threads.submit(self._chain.close)
        threads.end(drop=False)
        if wait([closing], _CLOSE_SECONDS).done:
            closing.result()

    def _fill(self, request: "_Request") -> None:
        self._chain.files[request.file].read_into(request.position, request.buffer[: request.length])

    def _next(
        self, ahead: "deque[tuple[Future[None], _Request]]", free: list[memoryview], stop: Event
    ) -> Iterator[Block]:
        """The blocks of the request that was sent first."""
        future, request = ahead[0]
        self._result(future, stop)
        ahead.popleft()
        yield from request.blocks(request.buffer)
        free.append(request.buffer)

    def _result(self, future: "Future[T]", stop: Event) -> T:
        return result_of(future, stop, self._chain.answers, self._answer_seconds)

    def _abort(self) -> None:
        for file in self._chain.files:
            file.abort()


class _Request(NamedTuple):
    """One range of a file, and which runs of the disk it holds."""

    file: int
    position: int
    length: int
    offsets: list[int]
    lengths: list[int]
    places: list[int]
    """Where each run begins in the range; what lies between them wasn't asked for."""
    buffer: memoryview
    """Of the longest request's size."""

    @classmethod
    def of(cls, pieces: Runs, first: int, behind: int) -> "_Request":
        rows = slice(first, behind)
        file, position = int(pieces.files[first]), int(pieces.positions[first])
        lengths, places = pieces.lengths[rows].tolist(), (pieces.positions[rows] - position).tolist()
        length = places[-1] + lengths[-1]
        return cls(file, position, length, pieces.offsets[rows].tolist(), lengths, places, memoryview(b""))

    def blocks(self, data: memoryview | None) -> Iterator[Block]:
        """The request's runs as blocks of the disk; of zeros without data."""
        for offset, length, at in zip(self.offsets, self.lengths, self.places, strict=True):
            yield Block(offset, length, None if data is None else data[at : at + length])


def _close_late(opening: "Future[Chain]") -> None:
    """Closes a chain that was opened when nobody waited for it any more."""
    if not opening.exception():
        opening.result().close()
