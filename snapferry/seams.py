"""The four seams that carry the design: each is a small protocol with several implementations.

| seam | what it answers |
|---|---|
| `Changes` | which extents differ since this base? |
| `DiskReader` | the blocks of these extents |
| `DiskWriter` | write, zero, flush |
| `Journal` | what of this round is already on stable storage? |
"""

from collections.abc import Iterator
from threading import Event
from typing import NamedTuple, Protocol

from snapferry.transfer.extents import Extents


class Block(NamedTuple):
    """A run of a disk's bytes as a reader hands it over.

    Attributes:
        offset: byte offset on the disk.
        length: bytes.
        data: the bytes, valid only until the reader's iterator is advanced; None where they are all zero.
    """

    offset: int
    length: int
    data: memoryview | None


class Changes(Protocol):
    """Which extents of one disk differ between a base and a snapshot."""

    def since(self, base: str | None) -> Extents:
        """The extents that may differ since `base`, in bytes; every allocated extent for None.

        What a base is called is the implementation's: a change id, or a snapshot's moref.

        Raises:
            SourceError: the source can't tell; nothing is assumed.
        """
        ...


class DiskReader(Protocol):
    """One disk as of one snapshot. Threads and requests in flight are the reader's own business."""

    @property
    def capacity_bytes(self) -> int: ...

    def read(self, extents: Extents, stop: Event) -> Iterator[Block]:
        """The blocks of `extents`, in any order, each byte exactly once.

        Raises:
            TransferError: a byte couldn't be read after the retries that make sense.
            Stopped: `stop` was set; raised within a second.
        """
        ...

    def close(self) -> None: ...


class DiskWriter(Protocol):
    """One image that already exists; a writer never creates one."""

    @property
    def capacity_bytes(self) -> int: ...

    def write(self, offset: int, data: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None:
        """Makes the range read as zeros."""
        ...

    def flush(self) -> None:
        """Puts everything written so far on stable storage.

        Raises:
            TransferError: it failed: everything since the last good flush has to be written again, because the
                kernel forgets the pages it couldn't write.
        """
        ...

    def close(self) -> None: ...


class Journal(Protocol):
    """What of this round is already on stable storage."""

    def done(self) -> Extents:
        """The extents that were flushed by an earlier attempt at the same round."""
        ...

    def add(self, extents: Extents) -> None:
        """Notes that `extents` are on stable storage; called only behind a flush of the data."""
        ...

    def clear(self) -> None:
        """Forgets the round: its id has been committed, or its data can't be trusted."""
        ...
