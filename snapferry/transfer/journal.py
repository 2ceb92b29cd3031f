"""What of a round is already on stable storage, so that a killed round doesn't copy it twice."""

import json
import os
import zlib
from collections.abc import Mapping
from io import BufferedRandom
from pathlib import Path
from typing import Any, Final

from snapferry.errors import TransferError
from snapferry.transfer.extents import Extents

_FORMAT: Final = 1


class JournalFailed(TransferError):
    """The journal's own file couldn't be read or written."""


class NoJournal:
    """A round that is copied in full when it is repeated."""

    def done(self) -> Extents:
        """Nothing."""
        return Extents.empty()

    def add(self, extents: Extents) -> None:
        """Forgets it."""

    def clear(self) -> None:
        """There is nothing to forget."""


class FileJournal:
    """A journal in a local file (0600, in a folder made 0700) that is bound to one disk's one round.

    The file has a line a record: a CRC-32 in hexadecimal, a blank, JSON. The first record is the identity, the others
    are lists of [offset, length]. Another identity makes it void; what stands behind a torn record is ignored.

    Args:
        path: of the file.
        identity: everything that makes this round this round: migration, disk, snapshot, both change ids, image, file.

    Raises:
        JournalFailed: the file can't be read or made.
    """

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        self._path = path
        self._head = {"format": _FORMAT, "identity": dict(identity)}
        self._noted: list[Extents] = []
        self._good_bytes = 0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                self._load()
        except OSError as error:
            raise self._failed(error) from error

    @property
    def begun(self) -> bool:
        """Whether there is a journal of this very round."""
        return self._good_bytes > 0

    def done(self) -> Extents:
        """What earlier attempts at this round, and this one, have noted."""
        return Extents.from_pairs(pair for one in self._noted for pair in one)

    def add(self, extents: Extents) -> None:
        """Notes `extents`, durably; call it behind a flush of their data.

        Raises:
            JournalFailed: it couldn't be noted.
        """
        lines = b"" if self._good_bytes else _line(self._head)
        lines += _line(list(extents))
        try:
            with _open(self._path) as file:
                file.truncate(self._good_bytes)  # what a crash left there would hide the records behind it
                file.seek(self._good_bytes)
                file.write(lines)
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        self._good_bytes += len(lines)
        self._noted.append(extents)

    def carry_over(self, extents: Extents) -> None:
        """Begins with `extents`, which an earlier copy put on stable storage, in place of the file that is there.

        Whatever kills this, either the old journal is there or the new one.

        Raises:
            JournalFailed: it couldn't be written; the old one stands.
        """
        lines = _line(self._head) + _line(list(extents))
        fresh = self._path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            with _open(fresh) as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise self._failed(error) from error
        self._good_bytes, self._noted = len(lines), [extents]

    def clear(self) -> None:
        """Forgets the round, durably: an old journal that comes back after a crash could vouch for lost data.

        Raises:
            JournalFailed: it couldn't be forgotten.
        """
        try:
            if self._path.exists():
                with _open(self._path) as file:
                    file.truncate(0)
                    os.fsync(file.fileno())
                self._path.unlink()
        except OSError as error:
            raise self._failed(error) from error
        self._good_bytes, self._noted = 0, []

    def _load(self) -> None:
        with _open(self._path) as file:
            lines = file.read().splitlines(keepends=True)
        for number, line in enumerate(lines):
            value = _value(line)
            if value is None or (number == 0 and value != self._head):
                return
            if number:
                self._noted.append(Extents.from_pairs(value))
            self._good_bytes += len(line)

    def _failed(self, error: OSError) -> JournalFailed:
        return JournalFailed(
            f"The journal {self._path} can't be used: {error.strerror}.",
            "Make room in its folder and let the worker's user write there; it may be deleted, it only saves time.",
        )


def _open(path: Path) -> BufferedRandom:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(fd, "r+b")


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _line(value: object) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> Any:
    """The record of a line; None where it is torn."""
    checksum, _, text = line.partition(b" ")
    whole = text.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text[:-1])
    return json.loads(text) if whole else None
