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


class ThumbprintMismatch(Refused):
    """The host's certificate isn't the one that vCenter named: somebody may be in between."""
