"""Export leases: the right to download a VM's disks, which ends unless its holder reports progress."""

import secrets
import threading
from typing import Any

from pyVmomi import vim

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.faults import make_fault
from snapferry.lab.vcenter.hardware import disks_of
from snapferry.lab.vcenter.machine import OFF, Machine
from snapferry.lab.vcenter.power import invalid_power_state

INITIALIZING, READY, DONE, ERROR = "initializing", "ready", "done", "error"


class Lease:
    """One lease. A task of the VM lasts as long as it does."""

    def __init__(self, call: Call, machine: Machine, snapshot: Any) -> None:
        self._vcenter = call.vcenter
        self._machine = machine
        self._snapshot = snapshot
        self._id = f"52{secrets.token_hex(15)}"
        self._changed = threading.Condition()
        self._touched = False
        self._outcome: tuple[str, Any] | None = None
        store = call.vcenter.store
        self.mo = vim.HttpNfcLease(f"session[{self._id}]{store.next_id('lease')}")
        capabilities = vim.HttpNfcLease.Capabilities(pullModeSupported=True, corsSupported=True)
        store.add(
            self.mo, initializeProgress=0, transferProgress=0, mode="pushOrGet", state=INITIALIZING,
            capabilities=capabilities,
        )  # fmt: skip

    def run(self) -> None:
        """The task's work: gets ready, and waits for the end."""
        store, faults = self._vcenter.store, self._vcenter.faults
        try:
            slow = faults.take("lease_slow", vm=self._machine.lab.name)
            if slow and self._vcenter.stop_event.wait(float(slow["seconds"])):
                return
            failing = faults.take("lease_fails", vm=self._machine.lab.name)
            if failing:
                fault = make_fault(str(failing.get("fault", "FileLocked")), str(failing.get("message", "")))
                self.end(ERROR, fault)
                raise fault
            info = self._open()
            with store.condition:
                if self._outcome is None:
                    store.change(self.mo, initializeProgress=100, info=info, state=READY)
            self._wait(info.leaseTimeout)
        finally:
            self._machine.exports.pop(self.mo._moId, None)
            self._machine.host.client.close_export(self._id)
        if self._outcome and self._outcome[1]:
            raise self._outcome[1]

    def touch(self, percent: int) -> None:
        """The holder is alive. Raises InvalidState once the lease has ended."""
        if self._vcenter.faults.take("lease_expires", vm=self._machine.lab.name):
            self.end(ERROR, vim.fault.Timedout(msg="The lease has timed out."))
        with self._changed:
            if self._outcome:
                raise vim.fault.InvalidState(msg="The operation is not allowed in the current state of the lease.")
            self._touched = True
            self._changed.notify_all()
        self._vcenter.store.change(self.mo, transferProgress=percent)

    def end(self, state: str, fault: Any = None) -> None:
        """Ends the lease. Raises InvalidState where it has ended already."""
        with self._changed:
            if self._outcome:
                raise vim.fault.InvalidState(msg="The operation is not allowed in the current state of the lease.")
            self._outcome = state, fault
            self._changed.notify_all()
        self._vcenter.store.change(self.mo, state=state, error=fault)

    def _wait(self, seconds: int) -> None:
        """Until somebody ends the lease, or nobody reports progress in time."""
        with self._changed:
            while not self._outcome and not self._vcenter.stopping:
                self._touched = False
                self._changed.wait_for(lambda: self._outcome or self._touched, seconds)
                if not (self._outcome or self._touched):
                    break
        if not self._outcome:
            self.end(ERROR, vim.fault.Timedout(msg="The lease has timed out."))

    def _open(self) -> Any:
        """Lets the host serve the disks; what the lease tells of them."""
        store, machine = self._vcenter.store, self._machine
        config = store.get(self._snapshot or machine.mo, "config")
        devices = {one.key: one for one in config.hardware.device}
        disks = disks_of(config)
        files = {f"disk-{number}.vmdk": disk.key for number, disk in enumerate(disks)}
        snapshot_id = self._snapshot._moId if self._snapshot else None
        machine.host.client.open_export(self._id, machine.moref, snapshot_id, files)
        name = "*" if self._vcenter.faults.take("lease_star", vm=machine.lab.name) else "127.0.0.1"
        urls = []
        for file, disk in zip(files, disks, strict=True):
            controller = devices[disk.controllerKey]
            kind = type(controller).__name__.rpartition(".")[2]
            place = f"{kind}{controller.busNumber}:{disk.unitNumber}"
            urls.append(
                vim.HttpNfcLease.DeviceUrl(
                    key=f"/{machine.moref}/{place}",
                    importKey=f"/{config.name}/{place}",
                    url=f"https://{name}:{machine.host.https_port}/nfc/{self._id}/{file}",
                    sslThumbprint=machine.host.thumbprint,
                    disk=True,
                    targetId=file,
                )
            )
        return vim.HttpNfcLease.Info(
            lease=self.mo,
            entity=machine.mo,
            deviceUrl=urls[::-1],  # in an order that nobody may go by
            totalDiskCapacityInKB=sum(disk.capacityInBytes for disk in disks) // 1024,
            leaseTimeout=self._vcenter.config.lease_timeout_seconds,
        )


def _start(call: Call, machine: Machine, snapshot: Any) -> Any:
    lease = Lease(call, machine, snapshot)
    machine.leases[lease.mo._moId] = lease

    def hold(task: Any) -> None:
        machine.exports[lease.mo._moId] = task

    task = call.vcenter.tasks.start(machine.mo, call.info.name, call.user.account.name, hold, lease.run)
    machine.add_recent_task(task)
    return lease.mo


@answers("ExportSnapshot")
def _export_snapshot(call: Call) -> Any:
    return _start(call, call.vcenter.machine(call.vcenter.store.get(call.this, "vm")), call.this)


@answers("ExportVm")
def _export_vm(call: Call) -> Any:
    machine = call.vcenter.machine(call.this)
    if machine.powered_on:
        raise invalid_power_state(machine, OFF)
    return _start(call, machine, None)


def _lease(call: Call) -> Lease:
    machines = call.vcenter.machines.values()
    lease: Lease = next(one.leases[call.this._moId] for one in machines if call.this._moId in one.leases)
    return lease


@answers("HttpNfcLeaseProgress")
def _progress(call: Call) -> None:
    _lease(call).touch(call.arguments["percent"])


@answers("HttpNfcLeaseComplete")
def _complete(call: Call) -> None:
    _lease(call).end(DONE)


@answers("HttpNfcLeaseAbort")
def _abort(call: Call) -> None:
    _lease(call).end(ERROR, call.get("fault") or vim.fault.Timedout(msg="The lease was aborted."))
