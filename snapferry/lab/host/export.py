"""Disks as an export lease sends them: streamOptimized, made while it is sent, from front to back only."""

import contextlib
import secrets
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

import numpy as np

from snapferry.lab.host.chain import View, merge_runs
from snapferry.lab.host.errors import HostError
from snapferry.lab.host.faults import Faults
from snapferry.vmdk import Descriptor, ExtentLine

GRAIN_BYTES = 64 << 10
_SECTOR = 512
_GRAIN_SECTORS = GRAIN_BYTES // _SECTOR
_TABLE_ENTRIES = 512
_TABLE_BYTES = _TABLE_ENTRIES * 4
_OVERHEAD_SECTORS = 128
_DESCRIPTOR_SECTORS = 20
_AT_END = 0xFFFF_FFFF_FFFF_FFFF
_END, _TABLE, _DIRECTORY, _FOOTER = 0, 1, 2, 3
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_PIECE_BYTES = 4 << 20


class Export:
    """What one lease opens, until it is closed."""

    def __init__(self, disks: dict[str, View]) -> None:
        self.disks = disks
        """By the file's name: `disk-0.vmdk`."""
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._closed = False

    def enter(self, connection: socket.socket) -> bool:
        """Notes a download; False where the lease has ended."""
        with self._lock:
            if not self._closed:
                self._sockets.add(connection)
            return not self._closed

    def leave(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)

    def close(self) -> None:
        """Cuts every download."""
        with self._lock:
            self._closed = True
            for connection in self._sockets:
                _cut(connection)


class Exports:
    """The leases that a host serves."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._lock = threading.Lock()
        self._open: dict[str, Export] = {}

    def open(self, lease: str, disks: dict[str, View]) -> None:
        with self._lock:
            self._open[lease] = Export(disks)

    def close(self, lease: str) -> None:
        with self._lock:
            export = self._open.pop(lease, None)
        if export:
            export.close()

    def serve(self, request: BaseHTTPRequestHandler, with_body: bool) -> None:
        """Answers `/nfc/<lease>/<file>`; whoever knows the lease's id may read."""
        _, _, lease, name = [*request.path.split("/"), "", ""][:4]
        with self._lock:
            export = self._open.get(lease)
        if export is None or name not in export.disks or self._faults.take("export_denied"):
            request.send_response(HTTPStatus.NOT_FOUND if export is None else HTTPStatus.FORBIDDEN)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(HTTPStatus.OK)
        request.send_header("Content-Type", "application/x-vnd.vmware-streamVmdk")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        if not with_body or not export.enter(request.connection):
            return
        try:
            self._send(request, export.disks[name])
        except HostError:
            _cut(request.connection)
        finally:
            export.leave(request.connection)
        request.close_connection = True

    def _send(self, request: BaseHTTPRequestHandler, view: View) -> None:
        limits = {name: self._faults.take(name) for name in ("export_cut", "export_stall")}
        spoil = self._faults.take("export_corrupt") is not None
        sent = 0
        for piece in stream(view, spoil):
            cut, stall = limits["export_cut"], limits["export_stall"]
            if cut and sent + len(piece) > cut.get("after_bytes", 0):
                request.wfile.write(b"%x\r\n" % len(piece) + piece[: len(piece) // 2])
                _cut(request.connection)
                return
            if stall and sent + len(piece) > stall.get("after_bytes", 0):
                limits["export_stall"] = None
                threading.Event().wait(stall.get("seconds", 0))
            if seconds := self._faults.value("export_delay", "seconds"):
                threading.Event().wait(seconds)
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            sent += len(piece)
        request.wfile.write(b"0\r\n\r\n")


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client may be faster
        # not SSLSocket.shutdown, which takes the TLS session away from under the thread that uses it
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def stream(view: View, spoil: bool = False) -> Iterator[bytes]:
    """The disk in pieces: header, grains that aren't zero with a table behind each 512, directory, footer, end.

    Args:
        spoil: a bit of the first grain is turned.

    Raises:
        HostError: locked: the view's snapshot has gone meanwhile.
    """
    capacity = -(-view.capacity_bytes // _SECTOR)
    yield _head(capacity)
    at = _OVERHEAD_SECTORS
    directory = np.zeros(-(-capacity // (_GRAIN_SECTORS * _TABLE_ENTRIES)), dtype="<u4")
    table = np.zeros(_TABLE_ENTRIES, dtype="<u4")
    filling = -1
    for grain, data in _grains(view):
        if grain // _TABLE_ENTRIES != filling:
            if filling >= 0:
                directory[filling] = at + 1
                yield _metadata(_TABLE, table.tobytes())
                at += 1 + _TABLE_BYTES // _SECTOR
                table[:] = 0
            filling = grain // _TABLE_ENTRIES
        packed = bytearray(zlib.compress(data, 1))
        if spoil:
            packed[len(packed) // 2] ^= 0x10
            spoil = False
        table[grain % _TABLE_ENTRIES] = at
        piece = _padded(struct.pack("<QI", grain * _GRAIN_SECTORS, len(packed)) + packed)
        yield piece
        at += len(piece) // _SECTOR
    if filling >= 0:
        directory[filling] = at + 1
        yield _metadata(_TABLE, table.tobytes())
        at += 1 + _TABLE_BYTES // _SECTOR
    yield _metadata(_DIRECTORY, directory.tobytes())
    yield _metadata(_FOOTER, _header(capacity, at + 1)) + bytes(_SECTOR)


def _grains(view: View) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every grain that isn't all zeros; the last one is filled up with zeros."""
    zeros = bytes(GRAIN_BYTES)
    buffer = memoryview(bytearray(_PIECE_BYTES))
    for start, end in merge_runs(view.data_runs(), GRAIN_BYTES).tolist():
        for offset in range(start, end, _PIECE_BYTES):
            view.check()
            piece = buffer[: min(_PIECE_BYTES, end - offset, view.capacity_bytes - offset)]
            view.read(offset, piece)
            for within in range(0, len(piece), GRAIN_BYTES):
                grain = bytes(piece[within : within + GRAIN_BYTES]).ljust(GRAIN_BYTES, b"\0")
                if grain != zeros:
                    yield (offset + within) // GRAIN_BYTES, grain


def _head(capacity: int) -> bytes:
    """Header and descriptor, up to the first marker."""
    descriptor = Descriptor(
        cid=secrets.randbelow(0xFFFF_FFFE) + 1,
        create_type="streamOptimized",
        extents=(ExtentLine(capacity, "SPARSE", "generated-stream.vmdk"),),
        ddb={"adapterType": "lsilogic", "virtualHWVersion": "19"},
    )
    text = descriptor.text().replace("RW ", "RDONLY ", 1).encode()
    head = _header(capacity, _AT_END) + text.ljust(_DESCRIPTOR_SECTORS * _SECTOR, b"\0")
    return head.ljust(_OVERHEAD_SECTORS * _SECTOR, b"\0")


def _header(capacity: int, directory: int) -> bytes:
    fields = (
        *(b"KDMV", 3, 0x30001, capacity, _GRAIN_SECTORS, 1, _DESCRIPTOR_SECTORS, _TABLE_ENTRIES),
        *(0, directory, _OVERHEAD_SECTORS, 0, b"\n \r\n", 1),
    )
    return _padded(_HEADER.pack(*fields))


def _metadata(kind: int, data: bytes) -> bytes:
    """A marker, and what follows it."""
    body = _padded(data)
    return _padded(struct.pack("<QII", len(body) // _SECTOR, 0, kind)) + body


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _SECTOR)
