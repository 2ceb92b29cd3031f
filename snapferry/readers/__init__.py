"""Routes to a disk's bytes."""

from snapferry.readers.errors import (
    DiskInUse,
    DiskNotOpened,
    NfcAllocationError,
    NfcError,
    NfcProtocolError,
    RouteFailed,
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
    "RouteFailed",
    "ThumbprintMismatch",
    "TicketRefused",
]
