"""Power of VMs, and the guest's own shutdown."""

import threading
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from snapferry.lab.vcenter.calls import Call, answers
from snapferry.lab.vcenter.machine import OFF, ON, Machine
from snapferry.lab.vcenter.snapshots import start_task

if TYPE_CHECKING:
    from snapferry.lab.vcenter.service import VCenter


def invalid_power_state(machine: Machine, wanted: str) -> Any:
    """The fault where a VM isn't in the power state that a call needs."""
    now = ON if machine.powered_on else OFF
    text = "The attempted operation cannot be performed in the current state"
    return vim.fault.InvalidPowerState(requestedState=wanted, existingState=now, msg=f"{text} ({now}).")


def switch_on(vcenter: "VCenter", machine: Machine, user: str) -> None:
    """The VM is held by the caller."""
    if machine.powered_on:
        raise invalid_power_state(machine, OFF)
    where = f"{machine.name} on {machine.host.name}"
    vcenter.events.post(vim.event.VmStartingEvent, user, f"{where} is starting", machine.mo)
    machine.power_on()
    vcenter.events.post(vim.event.VmPoweredOnEvent, user, f"{where} is powered on", machine.mo)


def switch_off(vcenter: "VCenter", machine: Machine, user: str) -> None:
    """The VM is held by the caller."""
    if not machine.powered_on:
        raise invalid_power_state(machine, ON)
    where = f"{machine.name} on {machine.host.name}"
    vcenter.events.post(vim.event.VmStoppingEvent, user, f"{where} is stopping", machine.mo)
    machine.power_off()
    vcenter.events.post(vim.event.VmPoweredOffEvent, user, f"{where} is powered off", machine.mo)


@answers("PowerOnVM_Task")
def _power_on(call: Call) -> Any:
    machine = call.vcenter.machine(call.this)
    return start_task(call, machine, lambda: switch_on(call.vcenter, machine, call.user.account.name))


@answers("PowerOffVM_Task")
def _power_off(call: Call) -> Any:
    machine = call.vcenter.machine(call.this)
    return start_task(call, machine, lambda: switch_off(call.vcenter, machine, call.user.account.name))


@answers("ShutdownGuest")
def _shutdown_guest(call: Call) -> None:
    machine = call.vcenter.machine(call.this)
    if not machine.powered_on:
        raise invalid_power_state(machine, ON)
    if not machine.tools_running:
        raise vim.fault.ToolsUnavailable(
            msg="Cannot complete operation because VMware Tools is not running in this virtual machine."
        )
    text = f"Guest OS shut down for {machine.name} on {machine.host.name}"
    call.vcenter.events.post(vim.event.VmGuestShutdownEvent, call.user.account.name, text, machine.mo)
    if call.vcenter.faults.take("shutdown_hangs", vm=machine.lab.name) is None:
        threading.Thread(target=_go_down, args=(call.vcenter, machine), daemon=True).start()


def _go_down(vcenter: "VCenter", machine: Machine) -> None:
    """The guest shuts down; nobody's task, so it waits until the VM is nobody's."""
    boot = vcenter.store.get(machine.mo, "runtime").bootTime
    if vcenter.stop_event.wait(machine.lab.shutdown_seconds):
        return
    with machine.exclusively():
        runtime = vcenter.store.get(machine.mo, "runtime")
        if machine.powered_on and runtime.bootTime == boot:
            switch_off(vcenter, machine, "")
