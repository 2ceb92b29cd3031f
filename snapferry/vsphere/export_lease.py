"""Export leases: the right to download the disks of a snapshot, or of a VM that is off, from their host.

Facts: the vSphere API's pages on HttpNfcLease; the form of the keys as vCenter 6.5 to 8.0 give them.
"""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pyVmomi import vim, vmodl

from snapferry.errors import SnapferryError, SourceError
from snapferry.vsphere import faults
from snapferry.vsphere.errors import Unreachable
from snapferry.vsphere.models import ExportSource, SourceDisk, SourceVm
from snapferry.vsphere.waits import Watched, wait_for

if TYPE_CHECKING:
    from snapferry.vsphere.session import Session

log = logging.getLogger(__name__)

READY_SECONDS: Final = 120.0
_TIMEOUT_SECONDS: Final = 300.0
"""What hosts allow; old ones say it in microseconds."""
_CONTROLLERS: Final = {
    "paravirtualscsicontroller": "pvscsi",
    "virtuallsilogiccontroller": "lsilogic",
    "virtuallsilogicsascontroller": "sas",
    "virtualbuslogiccontroller": "buslogic",
    "virtualidecontroller": "ide",
    "virtualahcicontroller": "sata",
    "virtualsatacontroller": "sata",
    "virtualnvmecontroller": "nvme",
}
_PLACE: Final = re.compile(r"/([A-Za-z]+)(\d+):(\d+)$")
_NEXT: Final = "Choose another route to these disks."


class LeaseDenied(SourceError):
    """vCenter gave no export lease, or it failed before it was ready."""


class LeaseEnded(SourceError):
    """The export lease ended before its disks were read."""


class ExportUnclear(SourceError):
    """Which download of a lease belongs to which disk can't be told for sure; none is used."""


class ExportLease:
    """An open lease, kept alive by a thread of its own.

    Attributes:
        sources: where each disk is downloaded, by its device key.
        percent: what vCenter's task shows, 0 to 100; whoever reads sets it.
    """

    def __init__(self, session: "Session", lease: Any, what: str, info: Any, sources: dict[int, ExportSource]) -> None:
        self.sources = sources
        self.percent = 0
        self._session = session
        self._lease = lease
        self._what = what
        self._timeout = min(max(1.0, float(info.leaseTimeout or _TIMEOUT_SECONDS)), _TIMEOUT_SECONDS)
        self._ended = Event()
        self._lost: SnapferryError | None = None
        self._keeper = Thread(target=self._keep, name=f"lease-{lease._moId}", daemon=True)

    def check(self) -> None:
        """Raises LeaseEnded once the lease has ended."""
        if self._lost is not None:
            raise LeaseEnded(
                f"The lease to {self._what} ended: {self._lost.cause}",
                "Begin the copy of its disks again with a new lease, or choose another route to them.",
            ) from self._lost

    def confirm(self) -> None:
        """Asks vCenter whether the lease is still open; where vCenter can't be reached, its host will tell.

        Raises:
            LeaseEnded: it isn't.
        """
        if self._lost is None:
            try:
                self._report()
            except Unreachable as error:
                log.warning("A lease couldn't be asked for: %s", error.cause)
            except SnapferryError as error:
                self._lost = error
        self.check()

    def _report(self) -> None:
        percent = min(100, max(0, int(self.percent)))
        self._session.call(f"go on to {self._what}", lambda: self._lease.HttpNfcLeaseProgress(percent))

    def _start(self) -> None:
        self._keeper.start()

    def _stop(self) -> None:
        self._ended.set()
        if self._keeper.ident is not None:
            self._keeper.join(self._session.login.timeout_seconds)

    def _keep(self) -> None:
        """Reports three times in each timeout; one report that vCenter missed is no harm."""
        alive = time.monotonic()
        while not self._ended.wait(self._timeout / 3):
            try:
                self._report()
                alive = time.monotonic()
            except Unreachable as error:
                log.warning("A lease couldn't be kept alive, trying again: %s", error.cause)
                if time.monotonic() - alive > self._timeout:
                    self._lost = error
                    return
            except SnapferryError as error:
                self._lost = error
                return


@contextmanager
def export_lease(
    session: "Session",
    vm: SourceVm,
    snapshot_moref: str | None,
    disks: Sequence[SourceDisk],
    *,
    ready_seconds: float = READY_SECONDS,
    stop: Event | None = None,
) -> Iterator[ExportLease]:
    """A lease for as long as the context lasts: then completed, or aborted if the context ends by an exception.

    While it is open, vCenter merges no snapshot of the VM.

    Args:
        snapshot_moref: the snapshot to read; None: the disks as they are, of a VM that is off.
        disks: those to read, as the snapshot or the VM has them.
        ready_seconds: how long vCenter may take to get it ready.
        stop: ends that wait.

    Raises:
        LeaseDenied: vCenter gives none (the VM runs and no snapshot is named, a disk can't be exported, no resources).
        ExportUnclear: it isn't sure which download is which disk.
        MissingPrivilege: the user lacks VApp.Export.
        NotInTime, Stopped, VmGone, SnapshotGone, SourceError: as they say.
    """
    what = f"export {'a snapshot' if snapshot_moref else 'the disks'} of {vm.name}"
    lease = _open(session, vm, snapshot_moref, what)
    held: ExportLease | None = None
    try:
        info = _ready(session, lease, ready_seconds, what, stop)
        held = ExportLease(session, lease, what, info, _sources(session, info, disks, what))
        held._start()
        yield held
    except BaseException:
        if held is not None:
            held._stop()
        _end(session, lease, what, completed=False)
        raise
    held._stop()
    _end(session, lease, what, completed=True)


def _open(session: "Session", vm: SourceVm, snapshot_moref: str | None, what: str) -> Any:
    def ask() -> Any:
        if snapshot_moref is None:
            return session.bind(vim.VirtualMachine, vm.moref).ExportVm()
        return session.bind(vim.vm.Snapshot, snapshot_moref).ExportSnapshot()

    try:
        return session.call(what, ask)
    except SourceError as error:
        if isinstance(error.__cause__, (vim.fault.InvalidState, vim.fault.FileFault, vmodl.fault.NotSupported)):
            raise LeaseDenied(error.cause, _NEXT) from error
        raise


def _ready(session: "Session", lease: Any, seconds: float, what: str, stop: Event | None) -> Any:
    """Waits until the lease is ready; what it tells of itself."""
    State = vim.HttpNfcLease.State
    watched = Watched(vim.HttpNfcLease, lease._moId, ["state", "info", "error"])

    def settled(values: dict[str, Any]) -> bool:
        state = values.get("state")
        return state in (State.done, State.error) or (state == State.ready and values.get("info") is not None)

    values = wait_for(session, watched, settled, seconds, what, stop)
    if values["state"] != State.ready:
        fault = values.get("error")
        why = faults.text(fault) if fault is not None else "it doesn't say why."
        raise LeaseDenied(f"vCenter couldn't {what}: {why}", _NEXT) from fault
    return values["info"]


def _end(session: "Session", lease: Any, what: str, *, completed: bool) -> None:
    """Gives the lease back; one that can't be given back ends by itself, without a word of ours."""
    if completed:
        try:
            session.call(f"end the lease to {what}", lambda: lease.HttpNfcLeaseComplete())
        except SnapferryError as error:
            log.warning("A lease wasn't completed, it is aborted: %s", error.cause)
        else:
            return
    try:
        session.call(f"abort the lease to {what}", lambda: lease.HttpNfcLeaseAbort())
    except SnapferryError as error:
        log.info("A lease has ended already, or ends by itself: %s", error.cause)


def _sources(session: "Session", info: Any, disks: Sequence[SourceDisk], what: str) -> dict[int, ExportSource]:
    """Which download is which disk: by the controller and unit that its key names.

    The lease tells the capacity of all together only; each stream tells its own, which its reader compares.
    """
    urls = [one for one in info.deviceUrl or () if one.disk]
    by_place: dict[tuple[str, int, int], Any] = {}
    for one in urls:
        place = _place(one)
        if place in by_place:
            raise ExportUnclear(f"vCenter names two downloads for one place, to {what}.", _NEXT)
        if place is not None:
            by_place[place] = one
    total = sum(disk.capacity_bytes for disk in disks)
    known = int(info.totalDiskCapacityInKB or 0) * 1024
    slack = 1024 * len(urls)
    if len(urls) == len(disks) and known and abs(known - total) > slack:
        raise ExportUnclear(f"vCenter exports {known} bytes of disks where {total} are known, to {what}.", _NEXT)
    if len(urls) == 1 == len(disks) and not by_place and known:
        return {disks[0].key: _source(session, urls[0], disks[0], what)}
    found = {}
    for disk in disks:
        one = by_place.get((disk.controller, disk.controller_bus, disk.unit))
        if one is None:
            raise ExportUnclear(f"No download of vCenter's is surely {disk.label} ({disk.place}), to {what}.", _NEXT)
        found[disk.key] = _source(session, one, disk, what)
    return found


def _place(url: Any) -> tuple[str, int, int] | None:
    """Controller, bus and unit that a download's keys name; None where they name none, or two."""
    places = set()
    for key in (url.key, url.importKey):
        match = _PLACE.search(key or "")
        controller = _CONTROLLERS.get(match[1].lower()) if match else None
        if match and controller:
            places.add((controller, int(match[2]), int(match[3])))
    return places.pop() if len(places) == 1 else None


def _source(session: "Session", url: Any, disk: SourceDisk, what: str) -> ExportSource:
    login = session.login
    try:
        parts = urlsplit(url.url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        host, port = "", 0
    if not host or parts.scheme != "https" or re.search(r"[^!-~]", url.url):
        raise ExportUnclear(f"vCenter names no https address for {disk.label}, to {what}.", _NEXT)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if host in ("*", "-"):  # a lone host doesn't know by which name it is called
        host = login.host
    return ExportSource(disk.key, disk.capacity_bytes, host, port, path, url.sslThumbprint or "", login.ca_pem)
