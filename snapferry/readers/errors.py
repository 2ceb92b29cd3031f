"""What can go wrong when blocks are read."""

from snapferry.errors import Refused, TransferError


class RouteFailed(TransferError):
    """This way to a disk's bytes doesn't lead on; another one may."""


class NfcError(RouteFailed):
    """The host refused, ended or didn't answer on NFC; a new connection may help, and is tried."""


class NfcAllocationError(NfcError):
    """The host has no NFC buffer memory left for this session or read."""


class TicketRefused(NfcError):
    """The host didn't take the ticket: it was used before, or is too old."""


class NfcProtocolError(NfcError):
    """The host sent what the protocol doesn't allow; nothing that it sent is trusted."""


class DiskNotOpened(RouteFailed):
    """The host doesn't open the disk."""


class DiskInUse(DiskNotOpened):
    """The host doesn't open the disk because a virtual machine writes to it, or did until a moment ago."""


class ExportError(RouteFailed):
    """A download of an export lease can't be used; it can't go on where it ended, only begin again."""


class ExportCut(ExportError):
    """The download ended, or fell silent, before its disk did, also when it was begun again."""


class ExportLeaseLost(ExportError):
    """The lease ended before its disk was read."""


class ExportRefused(ExportError):
    """The host doesn't give the download."""


class ExportMismatch(ExportError):
    """What comes isn't the disk that was asked for, or doesn't come in its order; nothing more of it is used."""


class DatastoreError(RouteFailed):
    """A file of a datastore can't be read."""


class DatastoreLocked(DatastoreError):
    """The host doesn't give a file away, because a running VM has it open."""


class DatastoreRefused(DatastoreError):
    """The server refuses this user, or isn't trusted."""


class DatastoreSilent(DatastoreError):
    """A mount hangs, or a server's answer doesn't come to an end."""


class ThumbprintMismatch(Refused):
    """The host's certificate isn't the one that vCenter named: somebody may be in between."""
