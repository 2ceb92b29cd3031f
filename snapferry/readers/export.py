"""Reads a disk as an export lease sends it: from front to back, as it arrives."""

import contextlib
import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Final, NamedTuple

import numpy as np

from snapferry.errors import SourceError, Stopped
from snapferry.readers.errors import (
    ExportCut,
    ExportError,
    ExportLeaseLost,
    ExportMismatch,
    ExportRefused,
    ThumbprintMismatch,
)
from snapferry.readers.nfc_wire import tls_context
from snapferry.seams import Block
from snapferry.transfer import BadExtents, Extents
from snapferry.vmdk import PackedGrain, StreamOptimized, VmdkTruncated
from snapferry.vsphere.models import ExportSource

BACKOFF_SECONDS: Final = (1.0, 5.0)
_RUN_BYTES: Final = 1 << 20
_RUNS: Final = 8
_BODY_BYTES: Final = 256 << 10
_LEAST_BYTES: Final = 64 << 10
_CONNECT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.2
_GOODBYE_SECONDS: Final = 2.0
_AGAIN: Final = "The copy of this disk has to begin again with a new lease, or to take another route."


class ExportReader:
    """One disk of an export lease. One read at a time; forward only.

    A thread receives, two more unpack ahead of whoever takes the blocks, in eight buffers of 1 MiB that are used again.
    A download can't go on where it broke. While the lease lives it is begun again, and what was handed over is passed.

    Args:
        source: the disk's download, of `ExportLease.sources`.
        confirm: raises once the lease has ended (`ExportLease.confirm`); asked before a download is begun again.
        silence_seconds: how long the host may send nothing; it may have to pass many zeros that it doesn't send.
        backoff_seconds: the waits before a download is begun again; behind the last it is given up.
        unpackers: threads that unpack.
    """

    def __init__(
        self,
        source: ExportSource,
        confirm: Callable[[], None],
        *,
        silence_seconds: float = 300,
        backoff_seconds: Sequence[float] = BACKOFF_SECONDS,
        unpackers: int = 2,
    ) -> None:
        self._source = source
        self._confirm = confirm
        self._silence = silence_seconds
        self._backoff = tuple(backoff_seconds)
        self._unpackers = unpackers
        self._download: _Download | None = None

    @property
    def capacity_bytes(self) -> int:
        return self._source.capacity_bytes

    def read(self, extents: Extents, stop: Event) -> Iterator[Block]:
        """The blocks of `extents` in the order of the disk, those that the host leaves out as zeros.

        Raises:
            BadExtents: they aren't on the disk.
            ExportCut: it broke each time; ExportRefused: the host doesn't give it; ExportMismatch: it isn't this disk.
            VmdkError: what came contradicts its format.
            ExportLeaseLost: the lease ended meanwhile.
            ThumbprintMismatch: the host isn't the one that vCenter named.
            Stopped: `stop` was set, or the reader closed.
        """
        if extents.end > self.capacity_bytes:
            raise BadExtents(f"{extents!r} aren't on a disk of {self.capacity_bytes} bytes.")
        wanted = _Wanted(extents)
        for wait in (*self._backoff, None):
            if not wanted.left:
                return
            self._download = download = _Download(self._source, wanted, self._silence, self._unpackers)
            try:
                yield from self._blocks(download, wanted, stop)
                return
            except (ExportCut, ExportRefused):
                self._check_lease()
                if wait is None:
                    raise
            finally:
                download.close()
            if stop.wait(wait):
                raise _stopped()

    def close(self) -> None:
        """Ends what is being read."""
        if self._download:
            self._download.close()

    def _check_lease(self) -> None:
        try:
            self._confirm()
        except SourceError as error:
            raise ExportLeaseLost(error.cause, error.next_step) from error

    def _blocks(self, download: "_Download", wanted: "_Wanted", stop: Event) -> Iterator[Block]:
        while wanted.left and (run := download.next_run(stop)):
            for start, end in wanted.until(run.offset):
                yield Block(start, end - start, None)
            for start, end in wanted.until(run.offset + run.length):
                yield Block(start, end - start, run.buffer[start - run.offset : end - run.offset])
            download.give_back(run)
        for start, end in wanted.until(self.capacity_bytes):
            yield Block(start, end - start, None)


class _Wanted:
    """Which bytes are still to be handed over."""

    def __init__(self, extents: Extents) -> None:
        self._extents = extents
        self._ends = extents.ends
        self.at = 0
        """Everything in front of here was handed over."""

    @property
    def left(self) -> bool:
        return self.at < self._extents.end

    def touches(self, start: int, end: int) -> bool:
        """Whether any of these bytes is still wanted; by any thread."""
        start = max(start, self.at)
        index = int(np.searchsorted(self._ends, start, side="right"))
        return start < end and index < len(self._ends) and int(self._extents.starts[index]) < end

    def until(self, end: int) -> Iterator[tuple[int, int]]:
        """The wanted runs (start, end) from where we are up to `end`; each counts as handed over by the next step."""
        index = int(np.searchsorted(self._ends, self.at, side="right"))
        while index < len(self._ends) and (first := max(self.at, int(self._extents.starts[index]))) < end:
            last = min(end, int(self._ends[index]))
            yield first, last
            self.at = last
            index += 1
        self.at = max(self.at, end)


class _Run(NamedTuple):
    """Grains that follow each other, and the buffer for their bytes."""

    offset: int
    length: int
    buffer: memoryview
    grains: list[PackedGrain]


class _Download:
    """One HTTP answer, received and unpacked ahead."""

    def __init__(self, source: ExportSource, wanted: _Wanted, silence_seconds: float, unpackers: int) -> None:
        self._source = source
        self._wanted = wanted
        self._silence = silence_seconds
        self._name = f"The export of disk {source.disk_key} from {source.host}:{source.port}"
        self._sock: socket.socket | None = None
        self._ended = Event()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_RUNS):
            self._free.put(memoryview(bytearray(_RUN_BYTES)))
        self._runs: SimpleQueue[Future[_Run] | Exception | None] = SimpleQueue()
        self._pool = ThreadPoolExecutor(unpackers, thread_name_prefix="unpack")
        self._thread = Thread(target=self._receive, name="export", daemon=True)
        self._thread.start()

    def next_run(self, stop: Event) -> _Run | None:
        """The next run of grains; None behind the disk's end."""
        while not (stop.is_set() or self._ended.is_set()):
            try:
                found = self._runs.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            if isinstance(found, Exception):
                raise found
            try:
                return None if found is None else found.result()
            except CancelledError:  # the reader was closed
                break
        raise _stopped()

    def give_back(self, run: _Run) -> None:
        """The run's buffer may be used again."""
        self._free.put(run.buffer)

    def close(self) -> None:
        """Ends the connection and the threads. Repeatable."""
        self._ended.set()
        if self._sock is not None:
            _cut(self._sock)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._thread.join(_GOODBYE_SECONDS)

    def _receive(self) -> None:
        """The receiving thread."""
        try:
            response = self._connect()
            try:
                self._take_grains(StreamOptimized(_Body(response, self._silence, self._name).read, self._name))
            finally:
                response.close()
            self._runs.put(None)
        except (OSError, http.client.HTTPException, VmdkTruncated) as error:
            self._runs.put(self._broken(error))
        except Exception as error:  # noqa: BLE001 - raised again by the thread that reads
            self._runs.put(error)
        finally:
            if self._sock is not None:
                self._sock.close()

    def _take_grains(self, stream: StreamOptimized) -> None:
        if stream.capacity_bytes != self._source.capacity_bytes:
            raise ExportMismatch(
                f"{self._name} is a disk of {stream.capacity_bytes} bytes, not of {self._source.capacity_bytes}.",
                "Look whether the disk was replaced or grew; else take another route to it.",
            )
        run: list[PackedGrain] = []
        end = 0
        for grain in stream.packed():
            if grain.offset < end:
                cause = f"{self._name} doesn't come in the order of the disk."
                raise ExportMismatch(cause, "Take another route to it.")
            if run and (grain.offset > end or end + grain.length - run[0].offset > _RUN_BYTES):
                self._unpack(stream, run)
                run = []
            end = grain.offset + grain.length
            if self._wanted.touches(grain.offset, end):
                run.append(grain)
            elif run:
                self._unpack(stream, run)
                run = []
        if run:
            self._unpack(stream, run)

    def _unpack(self, stream: StreamOptimized, grains: list[PackedGrain]) -> None:
        """Lets a run be unpacked, once there is a buffer for it."""
        while not self._ended.is_set():
            try:
                buffer = self._free.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            length = grains[-1].offset + grains[-1].length - grains[0].offset
            run = _Run(grains[0].offset, length, buffer, grains)
            try:
                self._runs.put(self._pool.submit(_unpacked, stream, run))
            except RuntimeError:  # the pool was shut down just now
                break
            return
        raise _stopped()

    def _connect(self) -> http.client.HTTPResponse:
        """Asks for the disk, once the host is known to be the right one."""
        source = self._source
        raw = socket.create_connection((source.host, source.port), timeout=min(self._silence, _CONNECT_SECONDS))
        self._sock = raw
        context = tls_context() if source.ssl_thumbprint else ssl.create_default_context(cadata=source.ca_pem)
        self._sock = sock = context.wrap_socket(raw, server_hostname=source.host)
        sock.settimeout(self._silence)
        self._compare(sock.getpeercert(binary_form=True) or b"")
        if self._ended.is_set():
            raise _stopped()
        connection = http.client.HTTPSConnection(source.host, source.port)
        connection.sock = sock
        connection.request("GET", source.path, headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise ExportRefused(
                f"{self._name} is refused: status {response.status}.",
                "Look at the VM's tasks and the host's log; the copy goes on by another route.",
            )
        return response

    def _compare(self, certificate: bytes) -> None:
        wanted = self._source.ssl_thumbprint.replace(":", "").lower()
        digest = "sha256" if len(wanted) == 64 else "sha1"
        found = hashlib.new(digest, certificate, usedforsecurity=False).hexdigest()
        if wanted and found != wanted:
            raise ThumbprintMismatch(
                f"{self._source.host}:{self._source.port} showed a certificate with the {digest} thumbprint {found}, "
                f"not {wanted}.",
                "If the host's certificate was just replaced, reconnect the host in vCenter; else look for somebody "
                "in between.",
            )

    def _broken(self, error: Exception) -> ExportError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ExportRefused(f"{self._name}: its certificate isn't trusted: {error.verify_message}.", _AGAIN)
        if isinstance(error, TimeoutError):
            return ExportCut(f"{self._name} sent nothing for {self._silence:g} seconds.", _AGAIN)
        why = "it ended before its disk did" if isinstance(error, VmdkTruncated) else str(error) or type(error).__name__
        return ExportCut(f"{self._name} broke: {why}.", _AGAIN)


class _Body:
    """The answer's bytes; so many have to come within the time, so that a trickle is no way to hold us."""

    def __init__(self, response: http.client.HTTPResponse, silence_seconds: float, name: str) -> None:
        self._response = response
        self._silence = silence_seconds
        self._data = b""
        self._at = 0
        self._came = 0
        self._since = time.monotonic()

    def read(self, length: int) -> bytes:
        """Up to so many of the next bytes; none at the end."""
        if self._at == len(self._data):
            self._data, self._at = self._response.read1(_BODY_BYTES), 0
            self._came += len(self._data)
            now = time.monotonic()
            if self._came >= _LEAST_BYTES:
                self._came, self._since = 0, now
            elif self._data and now - self._since > 2 * self._silence:
                raise TimeoutError
        part = self._data[self._at : self._at + length]
        self._at += len(part)
        return part


def _unpacked(stream: StreamOptimized, run: _Run) -> _Run:
    """Fills the run's buffer."""
    for grain in run.grains:
        at = grain.offset - run.offset
        run.buffer[at : at + grain.length] = stream.unpack(grain)
    run.grains.clear()
    return run


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have ended already
        # not SSLSocket.shutdown, which takes the TLS session away from under the thread that uses it
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _stopped() -> Stopped:
    return Stopped("The export was told to stop.", "Run it again.")
