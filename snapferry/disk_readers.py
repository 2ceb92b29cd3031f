"""Opens disks for reading by whichever route was chosen, and keeps what the readers of one point in time share."""

from contextlib import ExitStack
from threading import Event, Lock
from types import TracebackType
from typing import Self

from snapferry import vsphere
from snapferry.errors import SourceError
from snapferry.migration import Migration
from snapferry.plan import Route
from snapferry.readers import DatastoreReader, ExportReader, HttpsFolder, NfcReader, RouteFailed
from snapferry.seams import DiskReader
from snapferry.vmdk import LocalFolder
from snapferry.vsphere.models import SourceDisk


class DiskReaders:
    """Readers for the disks of one point in time; a context manager, which ends before its snapshot may go.

    Args:
        migration: whose VM is read.
        snapshot: moref; empty for the VM itself, where it is off.
        disks: every disk of the VM at that point.
        stop: ends a wait for an export lease, and for files that are opened.
    """

    def __init__(self, migration: Migration, snapshot: str, disks: tuple[SourceDisk, ...], stop: Event) -> None:
        self._migration = migration
        self._snapshot = snapshot
        self._disks = disks
        self._stop = stop
        self._shared = ExitStack()
        self._lock = Lock()
        self._lease: vsphere.ExportLease | None = None

    def open(self, route: Route, disk: SourceDisk) -> DiskReader:
        """A reader of the disk; the caller closes it. Called by several threads.

        Raises:
            RouteFailed: this route doesn't lead to the disk.
            SnapferryError: an end can't be asked.
        """
        match route:
            case Route.NFC:
                return self._nfc(disk)
            case Route.EXPORT:
                return self._export(disk)
            case Route.DATASTORE:
                return self._files(disk)
            case Route.MOUNT:
                folder = LocalFolder(self._migration.plan.mounts[disk.datastore])
                return DatastoreReader.open(folder, disk.file_name, disk.capacity_bytes, self._stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shared.__exit__(kind, error, trace)

    def _nfc(self, disk: SourceDisk) -> DiskReader:
        migration = self._migration

        def ticket() -> vsphere.NfcTicket:
            return vsphere.nfc_ticket(migration.source, migration.vm.moref, disk.key)

        plan = migration.plan
        return NfcReader(
            ticket,
            disk.file_name,
            disk.capacity_bytes,
            connections=plan.connections,
            compress=plan.nfc_compression,
        )

    def _files(self, disk: SourceDisk) -> DiskReader:
        folder = HttpsFolder(vsphere.folder_access(self._migration.source, self._migration.vm, disk))
        try:
            return DatastoreReader.open(folder, disk.file_name, disk.capacity_bytes, self._stop)
        except BaseException:
            folder.close()
            raise

    def _export(self, disk: SourceDisk) -> DiskReader:
        """One lease serves all disks of the point in time."""
        with self._lock:
            if self._lease is None:
                vm, snapshot = self._migration.vm, self._snapshot or None
                opened = vsphere.export_lease(self._migration.source, vm, snapshot, self._disks, stop=self._stop)
                try:
                    self._lease = self._shared.enter_context(opened)
                except (SourceError, vsphere.MissingPrivilege) as error:  # which only this route needs
                    raise RouteFailed(error.cause, error.next_step) from error
            return ExportReader(self._lease.sources[disk.key], self._lease.confirm)
