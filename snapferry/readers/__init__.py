"""Routes to a disk's bytes."""

from snapferry.readers.errors import (
    DiskInUse,
    DiskNotOpened,
    NfcAllocationError,
    NfcError,
    NfcProtocolError,
    ThumbprintMismatch,
    TicketRefused,
)
from snapferry.readers.nfc import NfcReader

__all__ = [
    "DiskInUse",
    "DiskNotOpened",
    "NfcAllocationError",
    "NfcError",
    "NfcProtocolError",
    "NfcReader",
    "ThumbprintMismatch",
    "TicketRefused",
]
