"""Digests of disks that don't depend on how they are stored.

Two rules: the SHA-256 over the capacity, as `sha256sum` of a raw image has it; and, for huge sparse disks, one over
their non-zero 4 KiB blocks alone: the SHA-256 of every longest run of adjacent non-zero blocks, in disk order, each
as its bytes followed by its offset and length (both u64, little-endian), and at the end the capacity (u64). A block is
non-zero if any of its bytes is; the last one may be shorter. Holes and written zeros make no difference.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

BLOCK_BYTES = 4096
_CHUNK_BYTES = 4 << 20
_ZEROS = memoryview(bytes(_CHUNK_BYTES))

Pieces = Iterable[tuple[int, memoryview]]
"""(offset, bytes) in disk order and apart, each starting at a block, that cover every non-zero block."""


def capacity_digest(pieces: Pieces, capacity_bytes: int) -> str:
    """SHA-256 (hex) over the whole capacity; what `pieces` leave out counts as zeros."""
    digest = hashlib.sha256()
    done = 0
    for offset, data in pieces:
        _add_zeros(digest, offset - done)
        digest.update(data)
        done = offset + len(data)
    _add_zeros(digest, capacity_bytes - done)
    return digest.hexdigest()


def extents_digest(pieces: Pieces, capacity_bytes: int) -> str:
    """SHA-256 (hex) over the non-zero blocks and where they lie."""
    digest = hashlib.sha256()
    run_start = run_end = 0
    for offset, data in pieces:
        for start, end in _non_zero_runs(data):
            if offset + start != run_end:
                _end_run(digest, run_start, run_end)
                run_start = offset + start
            digest.update(data[start:end])
            run_end = offset + end
    _end_run(digest, run_start, run_end)
    digest.update(struct.pack("<Q", capacity_bytes))
    return digest.hexdigest()


def file_extents_digest(path: Path) -> str:
    """The extents digest of a raw image or any other plain file; its size is the capacity."""
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        return extents_digest(_file_pieces(file.fileno(), size), size)


def _add_zeros(digest: "hashlib._Hash", length: int) -> None:
    while length > 0:
        digest.update(_ZEROS[:length])
        length -= len(_ZEROS)


def _end_run(digest: "hashlib._Hash", start: int, end: int) -> None:
    if end > start:
        digest.update(struct.pack("<QQ", start, end - start))


def _non_zero_runs(data: memoryview) -> Iterator[tuple[int, int]]:
    """(start, end) of the runs of blocks in `data` that hold anything but zeros."""
    blocks = -(-len(data) // BLOCK_BYTES)
    padded = np.frombuffer(data, dtype=np.uint8)
    if len(data) % BLOCK_BYTES:
        padded = np.concatenate((padded, np.zeros(blocks * BLOCK_BYTES - len(data), dtype=np.uint8)))
    filled = padded.view(np.uint64).reshape(blocks, -1).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], filled, [False])).astype(np.int8)))
    for start, end in edges.reshape(-1, 2).tolist():
        yield start * BLOCK_BYTES, min(end * BLOCK_BYTES, len(data))


def _file_pieces(fd: int, size: int) -> Iterator[tuple[int, memoryview]]:
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES
        except OSError:  # ENXIO: only a hole is left
            return
        start = max(start, end)
        hole = os.lseek(fd, start, os.SEEK_HOLE)
        end = min(-(-hole // BLOCK_BYTES) * BLOCK_BYTES, size)
        for offset in range(start, end, _CHUNK_BYTES):
            piece = buffer[: min(_CHUNK_BYTES, end - offset)]
            got = os.preadv(fd, [piece], offset)
            if got != len(piece):
                raise OSError(f"{got} of {len(piece)} bytes at {offset}: the file changed while it was read")
            yield offset, piece
