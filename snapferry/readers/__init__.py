"""Routes to a disk's bytes."""

from snapferry.readers.errors import (
    DiskInUse,
    DiskNotOpened,
    ExportCut,
    ExportError,
    ExportLeaseLost,
    ExportMismatch,
    ExportRefused,
    NfcAllocationError,
    NfcError,
    NfcProtocolError,
    RouteFailed,
    ThumbprintMismatch,
    TicketRefused,
)
from snapferry.readers.export import ExportReader
from snapferry.readers.nfc import NfcReader

__all__ = [
    "DiskInUse",
    "DiskNotOpened",
    "ExportCut",
    "ExportError",
    "ExportLeaseLost",
    "ExportMismatch",
    "ExportReader",
    "ExportRefused",
    "NfcAllocationError",
    "NfcError",
    "NfcProtocolError",
    "NfcReader",
    "RouteFailed",
    "ThumbprintMismatch",
    "TicketRefused",
]
