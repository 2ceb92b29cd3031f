"""Changes told by delta files: what the guest wrote after a snapshot lies in the files on top of the one it froze."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import reduce
from threading import Event

from snapferry import vsphere
from snapferry.errors import SourceError, Stopped
from snapferry.migration import Migration
from snapferry.readers import DatastoreLocked, HttpsFolder, RouteFailed, call_bounded
from snapferry.transfer import Extents
from snapferry.vmdk import Chain, Folder, LocalFolder, VmdkError, on_datastore, open_chain
from snapferry.vsphere.models import SourceDisk

BLOCK_BYTES = 64 << 10
"""As coarse as change tracking: grains of 512 bytes each by itself would be requests without number."""
BUSY_SECONDS = 60.0
"""How long the leaf of a VM that was just powered off may stay locked."""
BUSY_PAUSE_SECONDS = 2.0


class BaseGone(SourceError):
    """The snapshot that a base stands on is no longer there, or not below the disk as it is now."""


class DeltaFilesUnreadable(SourceError):
    """The files of a chain can't be read now, or not at all."""


class DeltaFiles:
    """`Changes` of one disk, told by the tables of its delta files.

    A delta file names every block that was written since the snapshot below it: data, zeros and unmapped ones alike.

    Args:
        open_folder: opens the disk's datastore; what it opens is closed with the stack.
        disk: at the point in time that is copied; its file is the chain's topmost.
        frozen_file: the file that a snapshot, by its moref, froze of this disk.
        busy_seconds: how long a locked leaf is waited for.
        stop: ends that wait, and any other; a file that hangs in a dead mount is left behind.
    """

    def __init__(
        self,
        open_folder: Callable[[ExitStack], Folder],
        disk: SourceDisk,
        frozen_file: Callable[[str], str],
        busy_seconds: float = 0.0,
        stop: Event | None = None,
    ) -> None:
        self._open_folder = open_folder
        self._disk = disk
        self._frozen_file = frozen_file
        self._busy_seconds = busy_seconds
        self._stop = stop or Event()

    def since(self, base: str | None) -> Extents:
        """The extents that may differ since the snapshot `base`, by its moref; those that hold data for None.

        Raises:
            BaseGone: that snapshot is no longer there, or the disk doesn't stand on it.
            DeltaFilesUnreadable: a file is locked, damaged or can't be had.
            Stopped: `stop` was set.
        """
        frozen = None if base is None else self._frozen_file(base)
        try:
            with ExitStack() as stack:
                folder = self._open_folder(stack)
                return call_bounded(self._told, self._stop, folder.answers, folder, frozen)
        except (RouteFailed, VmdkError) as error:
            raise DeltaFilesUnreadable(
                f"The delta files of {self._disk.label} can't be read: {error.cause}", error.next_step
            ) from error

    def _told(self, folder: Folder, frozen: str | None) -> Extents:
        """What the chain names; all that holds data where no frozen file is given."""
        with closing(self._open_chain(folder)) as chain:
            if chain.capacity_bytes != self._disk.capacity_bytes:
                sizes = f"{chain.capacity_bytes} bytes, not of {self._disk.capacity_bytes}"
                raise DeltaFilesUnreadable(f"{self._disk.file_name} is a disk of {sizes}.")
            return chain.allocated() if frozen is None else self._above(chain, frozen)

    def _above(self, chain: Chain, frozen: str) -> Extents:
        """What the layers above the frozen one name."""
        paths = [on_datastore(layer.path) for layer in chain.layers]
        if on_datastore(_path(frozen)) not in paths:
            raise BaseGone(f"{self._disk.file_name} doesn't stand on {frozen}, as its base does.")
        first = paths.index(on_datastore(_path(frozen))) + 1
        named = [chain.layer_extents(number) for number in range(first, len(paths))]
        return reduce(Extents.union, named, Extents.empty()).aligned(BLOCK_BYTES, self._disk.capacity_bytes)

    def _open_chain(self, folder: Folder) -> Chain:
        """The chain; a leaf that is locked is waited for."""
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                return open_chain(folder, _path(self._disk.file_name))
            except DatastoreLocked:
                if time.monotonic() >= deadline:
                    raise
            if self._stop.wait(BUSY_PAUSE_SECONDS):
                raise Stopped("The read was told to stop.")


def delta_files(migration: Migration, disk: SourceDisk, *, off: bool, stop: Event) -> DeltaFiles:
    """The changes of a VM's disk as its delta files tell them.

    Args:
        migration: the VM's.
        disk: at the point in time that is copied.
        off: whether the VM is off: its leaf may stay busy for some seconds then.
        stop: ends a wait for it.
    """

    def open_folder(stack: ExitStack) -> Folder:
        mounts = migration.plan.mounts
        if disk.datastore_kind == "nfs" and disk.datastore in mounts:
            return LocalFolder(mounts[disk.datastore])
        folder = HttpsFolder(vsphere.folder_access(migration.source, migration.vm, disk))
        stack.callback(folder.close)
        return folder

    def frozen_file(snapshot: str) -> str:
        if snapshot not in {one.moref for one in migration.vm.snapshots}:
            raise BaseGone(f"The snapshot {snapshot} that the base of {disk.label} stands on is gone.")
        for one in vsphere.read_snapshot(migration.source, snapshot).disks:
            if one.backing_uuid == disk.backing_uuid:
                return one.file_name
        raise BaseGone(f"The snapshot {snapshot} doesn't hold {disk.label}.")

    return DeltaFiles(open_folder, disk, frozen_file, BUSY_SECONDS if off else 0.0, stop)


def _path(file_name: str) -> str:
    """A file's path on its datastore, from vSphere's `[san1] web01/web01.vmdk`."""
    return file_name.partition("] ")[2] or file_name
