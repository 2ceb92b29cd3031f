"""Routes to a disk's bytes."""

from snapferry.readers.daemon_threads import call_bounded
from snapferry.readers.datastore import DatastoreReader
from snapferry.readers.errors import (
    DatastoreError,
    DatastoreLocked,
    DatastoreRefused,
    DatastoreSilent,
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
from snapferry.readers.https_folder import HttpsFolder
from snapferry.readers.nfc import NfcReader

__all__ = [
    "DatastoreError",
    "DatastoreLocked",
    "DatastoreReader",
    "DatastoreRefused",
    "DatastoreSilent",
    "DiskInUse",
    "DiskNotOpened",
    "ExportCut",
    "ExportError",
    "ExportLeaseLost",
    "ExportMismatch",
    "ExportReader",
    "ExportRefused",
    "HttpsFolder",
    "NfcAllocationError",
    "NfcError",
    "NfcProtocolError",
    "NfcReader",
    "RouteFailed",
    "ThumbprintMismatch",
    "TicketRefused",
    "call_bounded",
]
