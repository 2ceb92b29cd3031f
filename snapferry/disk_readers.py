"""Opens a disk for reading by whichever route was chosen."""

from snapferry import vsphere
from snapferry.migration import Migration
from snapferry.plan import Route
from snapferry.readers import NfcReader
from snapferry.seams import DiskReader
from snapferry.vsphere.models import SourceDisk


class DiskReaders:
    """Readers for the disks of one point in time, and what they share.

    Args:
        migration: whose VM is read.
    """

    def __init__(self, migration: Migration) -> None:
        self._migration = migration

    def open(self, route: Route, disk: SourceDisk) -> DiskReader:
        """A reader of the disk; the caller closes it.

        Raises:
            RouteFailed: this route doesn't lead to the disk.
            SnapferryError: an end can't be asked.
        """
        return self._nfc(disk)

    def _nfc(self, disk: SourceDisk) -> DiskReader:
        migration = self._migration

        def ticket() -> vsphere.NfcTicket:
            return vsphere.nfc_ticket(migration.source, migration.vm.moref, disk.key)

        return NfcReader(ticket, disk.file_name, disk.capacity_bytes, connections=migration.plan.connections)
