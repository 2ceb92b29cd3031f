"""Power, shutdown, reconfiguration, renaming and the events of all that."""

import time
from datetime import timedelta
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from snapferry.lab import Lab

PC = vmodl.query.PropertyCollector


def nics(vm: Any) -> list[Any]:
    return [one for one in vm.config.hardware.device if isinstance(one, vim.vm.device.VirtualEthernetCard)]


def events_of(si: Any, vm: Any, *types: str, **more: Any) -> list[Any]:
    by = vim.event.EventFilterSpec.ByEntity(entity=vm, recursion="self")
    return list(
        si.content.eventManager.QueryEvents(vim.event.EventFilterSpec(entity=by, eventTypeId=list(types), **more))
    )


def wait_for_power(si: Any, vm: Any, state: str) -> None:
    """Waits until the VM has the power state, for 10 seconds at most."""
    collector = si.content.propertyCollector.CreatePropertyCollector()
    spec = PC.PropertySpec(type=vim.VirtualMachine, pathSet=["runtime.powerState"])
    collector.CreateFilter(PC.FilterSpec(objectSet=[PC.ObjectSpec(obj=vm)], propSet=[spec]), True)
    version, deadline = "", time.monotonic() + 10
    while vm.runtime.powerState != state:
        assert time.monotonic() < deadline
        update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=1))
        version = update.version if update else version
    collector.DestroyPropertyCollector()


def test_a_guest_shuts_down_when_asked(si: Any, vm: Any, lab: Lab) -> None:
    vm.ShutdownGuest()
    wait_for_power(si, vm, "poweredOff")
    assert vm.guest.toolsRunningStatus == "guestToolsNotRunning"
    assert vm.runtime.bootTime is None
    assert not any(nic.connectable.connected for nic in nics(vm))
    assert lab.control.last_sequence(vm.name) > 0
    kinds = [type(one).__name__.rpartition(".")[2] for one in events_of(si, vm)]
    assert kinds[-3:] == ["VmGuestShutdownEvent", "VmStoppingEvent", "VmPoweredOffEvent"]
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.ShutdownGuest()
    WaitForTask(vm.PowerOnVM_Task())
    assert vm.runtime.powerState == "poweredOn"
    assert vm.guest.toolsRunningStatus == "guestToolsRunning"


def test_a_guest_without_tools_can_not_be_asked(si: Any) -> None:
    mute = si.content.searchIndex.FindByInventoryPath("Vienna/dc1/vm/prod/mute")
    with pytest.raises(vim.fault.ToolsUnavailable):
        mute.ShutdownGuest()


def test_a_guest_can_ignore_the_request_until_the_plug_is_pulled(si: Any, vm: Any, lab: Lab) -> None:
    lab.control.set_fault("shutdown_hangs", vm=vm.name)
    vm.ShutdownGuest()
    assert vm.runtime.powerState == "poweredOn"
    WaitForTask(vm.PowerOffVM_Task())
    assert vm.runtime.powerState == "poweredOff"
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(vm.PowerOffVM_Task())


def test_somebody_else_can_power_a_vm_on(si: Any, vm: Any, lab: Lab) -> None:
    WaitForTask(vm.PowerOffVM_Task())
    since = si.CurrentTime()
    lab.control.power_on(vm.name)
    assert lab.control.power(vm.name) == "poweredOn"
    found = events_of(si, vm, "VmPoweredOnEvent", time=vim.event.EventFilterSpec.ByTime(beginTime=since))
    assert [one.userName for one in found] == ["somebody@vsphere.local"]
    late = vim.event.EventFilterSpec.ByTime(beginTime=si.CurrentTime() + timedelta(seconds=1))
    assert events_of(si, vm, time=late) == []


def test_events_are_collected_page_by_page(si: Any, vm: Any) -> None:
    WaitForTask(vm.PowerOffVM_Task())
    WaitForTask(vm.PowerOnVM_Task())
    by = vim.event.EventFilterSpec.ByEntity(entity=vm, recursion="self")
    collector = si.content.eventManager.CreateCollectorForEvents(vim.event.EventFilterSpec(entity=by))
    collector.RewindCollector()
    pages = []
    while page := collector.ReadNextEvents(2):
        assert len(page) <= 2
        pages += [one.key for one in page]
    assert pages == [one.key for one in events_of(si, vm)]
    assert [one.key for one in collector.latestPage] == pages[::-1]
    collector.DestroyCollector()


def test_events_of_a_folder_are_those_of_its_vms(si: Any, vm: Any) -> None:
    by = vim.event.EventFilterSpec.ByEntity(entity=vm.parent, recursion="children")
    spec = vim.event.EventFilterSpec(entity=by, eventTypeId=["vim.event.VmPoweredOnEvent"])
    found = si.content.eventManager.QueryEvents(spec)
    assert vm in [one.vm.vm for one in found]
    assert {type(one) for one in found} == {vim.event.VmPoweredOnEvent}


def test_nics_are_told_not_to_connect(si: Any, vm: Any) -> None:
    nic = nics(vm)[0]
    nic.connectable.startConnected = False
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=nic)
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
    assert not nics(vm)[0].connectable.startConnected
    assert nics(vm)[0].connectable.connected
    WaitForTask(vm.PowerOffVM_Task())
    WaitForTask(vm.PowerOnVM_Task())
    assert not nics(vm)[0].connectable.connected
    assert events_of(si, vm, "VmReconfiguredEvent")


def test_a_reconfiguration_of_an_older_version_is_refused(vm: Any) -> None:
    old = vm.config.changeVersion
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="moved", changeVersion=old)))
    assert vm.config.annotation == "moved"
    with pytest.raises(vim.fault.ConcurrentAccess):
        WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="again", changeVersion=old)))


def test_a_vm_is_renamed_unless_the_name_is_taken(si: Any, vm: Any, lab: Lab) -> None:
    old = vm.name
    WaitForTask(vm.Rename_Task(f"{old} (moved 1/2)"))
    assert vm.name == vm.config.name == vm.summary.config.name == f"{old} (moved 1%2f2)"
    assert lab.control.power(vm.name) == "poweredOn"
    with pytest.raises(vim.fault.DuplicateName):
        WaitForTask(vm.Rename_Task("web01"))
    with pytest.raises(vim.fault.InvalidName):
        WaitForTask(vm.Rename_Task(""))
    (event,) = events_of(si, vm, "VmRenamedEvent")
    assert (event.oldName, event.newName) == (old, f"{old} (moved 1%2f2)")
