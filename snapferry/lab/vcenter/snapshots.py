"""Snapshots and change queries."""

from collections.abc import Callable
from typing import Any

from pyVmomi import vim

from snapferry.lab.host.errors import HostError
from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.faults import fault_of_host, invalid_argument, make_fault
from snapferry.lab.vcenter.machine import Machine
from snapferry.lab.vcenter.soap import not_found

MAX_DEPTH = 32


def start_task(call: Call, machine: Machine, work: Callable[[], Any]) -> Any:
    """Starts a task that holds the VM while `work` runs."""
    faults = call.vcenter.faults

    def run() -> Any:
        try:
            slow = faults.take("slow_task", method=call.method, vm=machine.lab.name)
            if slow:
                call.vcenter.stop_event.wait(float(slow["seconds"]))
            failing = faults.take("task", method=call.method, vm=machine.lab.name)
            if failing:
                raise make_fault(str(failing["fault"]), str(failing.get("message", "")))
            return work()
        finally:
            machine.release()

    task = call.vcenter.tasks.start(machine.mo, call.info.name, call.user.account.name, machine.hold, run)
    machine.add_recent_task(task)
    return task


def _tell(call: Call, machine: Machine, what: str) -> None:
    user = call.user.account.name
    call.vcenter.events.post(vim.event.TaskEvent, user, f"Task: {what}", machine.mo)


@answers("CreateSnapshot_Task", "CreateSnapshotEx_Task")
def _create_snapshot(call: Call) -> Any:
    machine = call.vcenter.machine(call.this)

    def work() -> Any:
        if call.get("memory", False):
            raise make_fault("SnapshotFault", "Snapshots of memory are not simulated.")
        if call.get("quiesce", False) and not machine.tools_running:
            raise vim.fault.ApplicationQuiesceFault(msg="An error occurred while quiescing the virtual machine.")
        if len(machine.snapshots) >= MAX_DEPTH:
            raise vim.fault.TooManySnapshotLevels(msg="The maximum number of snapshot levels has been reached.")
        return machine.create_snapshot(call.arguments["name"], call.get("description", ""))

    _tell(call, machine, "Create virtual machine snapshot")
    return start_task(call, machine, work)


@answers("RemoveSnapshot_Task")
def _remove_snapshot(call: Call) -> Any:
    machine = call.vcenter.machine(call.vcenter.store.get(call.this, "vm"))
    mo = call.this

    def work() -> None:
        machine.refuse_while_exported()
        nodes = [node.mo for node in machine.snapshots]
        if mo not in nodes:
            raise not_found(mo)
        doomed = nodes[nodes.index(mo) :] if call.arguments["removeChildren"] else [mo]
        for one in reversed(doomed):
            leaves_files = call.vcenter.faults.take("consolidation", vm=machine.lab.name)
            machine.remove_snapshot(one, consolidate=call.get("consolidate", True) and not leaves_files)

    _tell(call, machine, "Remove snapshot")
    return start_task(call, machine, work)


@answers("RemoveAllSnapshots_Task")
def _remove_all_snapshots(call: Call) -> Any:
    machine = call.vcenter.machine(call.this)

    def work() -> None:
        machine.refuse_while_exported()
        for node in reversed(list(machine.snapshots)):
            machine.remove_snapshot(node.mo, consolidate=call.get("consolidate", True))

    _tell(call, machine, "Remove all snapshots")
    return start_task(call, machine, work)


@answers("ConsolidateVMDisks_Task")
def _consolidate(call: Call) -> Any:
    machine = call.vcenter.machine(call.this)
    _tell(call, machine, "Consolidate virtual machine disk files")
    return start_task(call, machine, machine.consolidate)


@answers("RenameSnapshot")
def _rename_snapshot(call: Call) -> None:
    machine = call.vcenter.machine(call.vcenter.store.get(call.this, "vm"))
    machine.rename_snapshot(call.this, call.get("name"), call.get("description"))


@answers("QueryChangedDiskAreas")
def _changed_areas(call: Call) -> Any:
    machine = call.vcenter.machine(call.this)
    snapshot = call.get("snapshot")
    if snapshot is not None and snapshot not in [node.mo for node in machine.snapshots]:
        raise not_found(snapshot) if call.vcenter.store.find(snapshot._moId) is None else invalid_argument("snapshot")
    try:
        page = machine.host.client.changed_areas(
            machine.moref,
            call.arguments["deviceKey"],
            snapshot._moId if snapshot else None,
            call.arguments["changeId"],
            call.arguments["startOffset"],
            call.vcenter.config.change_page_extents,
        )
    except HostError as error:
        raise fault_of_host(error) from error
    Info = vim.VirtualMachine.DiskChangeInfo
    areas = [Info.DiskChangeExtent(start=start, length=length) for start, length in page["areas"]]
    return Info(startOffset=page["start"], length=page["length"], changedArea=areas)
