"""Export leases of the simulated vCenter: held, kept alive, given back, and read through."""

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import vim

from snapferry.lab import Lab
from snapferry.readers import ExportLeaseLost, ExportReader
from snapferry.transfer import Extents
from snapferry.vsphere import (
    ExportUnclear,
    LeaseDenied,
    MissingPrivilege,
    NotInTime,
    Session,
    Snapshot,
    SourceVm,
    create_snapshot,
    export_lease,
    remove_snapshot,
)

from ..conftest import wait_for

Find = Callable[[str], SourceVm]


@pytest.fixture
def frozen(session: Session, find: Find) -> Callable[[str], tuple[SourceVm, Snapshot]]:
    """A VM with a new snapshot."""

    def make(name: str) -> tuple[SourceVm, Snapshot]:
        vm = find(name)
        snapshot = create_snapshot(session, vm, f"snapferry-t-r{time.monotonic_ns()}", "")
        return vm, snapshot

    return make


Frozen = Callable[[str], tuple[SourceVm, Snapshot]]


def calls(lab: Lab, method: str) -> int:
    return lab.control.counters().calls.get(method, 0)


def state_of(session: Session, lease: Any) -> str:
    return str(session.bind(vim.HttpNfcLease, lease._moId).state)


def digest(reader: ExportReader) -> str:
    disk = bytearray(reader.capacity_bytes)
    for block in reader.read(Extents.whole(reader.capacity_bytes), threading.Event()):
        if block.data is not None:
            disk[block.offset : block.offset + block.length] = block.data
    return hashlib.sha256(disk).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "lease_star"])
def test_every_disk_of_a_snapshot_is_read_through_one_lease(
    lab: Lab, session: Session, frozen: Frozen, fault: str | None
) -> None:
    vm, snapshot = frozen("export")
    if fault:
        lab.control.set_fault(fault)
    completed = calls(lab, "HttpNfcLeaseComplete")
    with export_lease(session, vm, snapshot.moref, snapshot.disks) as lease:
        for index, disk in enumerate(sorted(snapshot.disks, key=lambda disk: disk.key)):
            reader = ExportReader(lease.sources[disk.key], lease.confirm)
            assert digest(reader) == lab.control.digest("export", index, snapshot.moref), disk.place
    assert calls(lab, "HttpNfcLeaseComplete") == completed + 1
    assert state_of(session, lease._lease) == "done"
    remove_snapshot(session, vm, snapshot.moref)


@pytest.mark.slow
def test_a_lease_outlives_several_timeouts(lab: Lab, session: Session, frozen: Frozen) -> None:
    vm, snapshot = frozen("export")
    with export_lease(session, vm, snapshot.moref, snapshot.disks) as lease:
        reported = calls(lab, "HttpNfcLeaseProgress")
        lab.control.set_fault("drop", method="HttpNfcLeaseProgress", when="before")
        wait_for(lambda: calls(lab, "HttpNfcLeaseProgress") >= reported + 6, 20, "six reports of a third of a second")
        lease.check()
        assert state_of(session, lease._lease) == "ready"
        digest(ExportReader(lease.sources[snapshot.disks[0].key], lease.confirm))


def test_a_lease_that_is_lost_in_mid_stream_is_named(lab: Lab, session: Session, frozen: Frozen) -> None:
    vm, snapshot = frozen("export-lost")
    lab.control.set_fault("export_delay", seconds=0.3)
    lab.control.set_fault("lease_expires", vm="export-lost")
    with (
        pytest.raises(ExportLeaseLost, match="ended"),
        export_lease(session, vm, snapshot.moref, snapshot.disks) as lease,
    ):
        digest(ExportReader(lease.sources[snapshot.disks[0].key], lease.confirm, backoff_seconds=(0.1,)))


def test_nobody_who_fails_leaves_a_lease(lab: Lab, session: Session, frozen: Frozen) -> None:
    vm, snapshot = frozen("export")
    with pytest.raises(ZeroDivisionError), export_lease(session, vm, snapshot.moref, snapshot.disks) as lease:
        raise ZeroDivisionError
    assert state_of(session, lease._lease) == "error"
    assert not lease._keeper.is_alive()
    other = tuple(disk.model_copy(update={"unit": disk.unit + 5}) for disk in snapshot.disks)
    aborted = calls(lab, "HttpNfcLeaseAbort")
    with pytest.raises(ExportUnclear), export_lease(session, vm, snapshot.moref, other):
        pass
    with pytest.raises(ExportUnclear, match="are known"):
        grown = (snapshot.disks[0].model_copy(update={"capacity_bytes": 1 << 30}), *snapshot.disks[1:])
        with export_lease(session, vm, snapshot.moref, grown):
            pass
    assert calls(lab, "HttpNfcLeaseAbort") == aborted + 2


def test_a_lease_that_doesnt_get_ready_is_named_and_given_back(lab: Lab, session: Session, frozen: Frozen) -> None:
    vm, snapshot = frozen("export-fails")
    lab.control.set_fault("lease_fails", vm="export-fails", fault="FileLocked", message="Somebody holds the disk.")
    with pytest.raises(LeaseDenied, match="Somebody holds"), export_lease(session, vm, snapshot.moref, snapshot.disks):
        pass
    lab.control.set_fault("lease_slow", vm="export-fails", seconds=5)
    aborted = calls(lab, "HttpNfcLeaseAbort")
    with pytest.raises(NotInTime), export_lease(session, vm, snapshot.moref, snapshot.disks, ready_seconds=0.2):
        pass
    assert calls(lab, "HttpNfcLeaseAbort") == aborted + 1


def test_no_snapshot_is_merged_while_a_lease_reads_it(session: Session, frozen: Frozen) -> None:
    vm, snapshot = frozen("export-merge")
    with export_lease(session, vm, snapshot.moref, snapshot.disks):
        task = session.bind(vim.vm.Snapshot, snapshot.moref).RemoveSnapshot_Task(False, True)
        wait_for(lambda: task.info.state == "error", 10, "the removal's refusal")
        assert isinstance(task.info.error, vim.fault.TaskInProgress)
    remove_snapshot(session, vm, snapshot.moref)


def test_a_vm_is_exported_without_a_snapshot_only_while_it_is_off(lab: Lab, session: Session, find: Find) -> None:
    running, off = find("export"), find("export-off")
    with pytest.raises(LeaseDenied), export_lease(session, running, None, running.disks):
        pass
    with export_lease(session, off, None, off.disks) as lease:
        assert digest(ExportReader(lease.sources[off.disks[0].key], lease.confirm)) == lab.control.digest(off.name, 0)


def test_the_privilege_that_is_missing_is_named(
    session: Session, frozen: Frozen, open_session: Callable[..., Session]
) -> None:
    vm, snapshot = frozen("export")
    reader = open_session("reader@vsphere.local")
    with pytest.raises(MissingPrivilege) as raised, export_lease(reader, vm, snapshot.moref, snapshot.disks):
        pass
    assert raised.value.privilege == "VApp.Export"
