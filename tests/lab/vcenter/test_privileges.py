"""Privileges are asked for by the calls themselves."""

from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim

from snapferry.lab import Lab

CALLS = {
    "VirtualMachine.State.CreateSnapshot": lambda vm: vm.CreateSnapshot_Task("s", "", False, False),
    "VirtualMachine.State.RemoveSnapshot": lambda vm: vm.RemoveAllSnapshots_Task(),
    "VirtualMachine.Interact.PowerOn": lambda vm: vm.PowerOnVM_Task(),
    "VirtualMachine.Interact.PowerOff": lambda vm: vm.ShutdownGuest(),
    "VirtualMachine.Provisioning.DiskRandomRead": lambda vm: vm.QueryChangedDiskAreas(None, 2000, 0, "*"),
    "VirtualMachine.Config.ChangeTracking": lambda vm: vm.ReconfigVM_Task(
        vim.vm.ConfigSpec(changeTrackingEnabled=False)
    ),
    "VirtualMachine.Config.Annotation": lambda vm: vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")),
    "VirtualMachine.Config.EditDevice": lambda vm: vm.ReconfigVM_Task(
        vim.vm.ConfigSpec(
            deviceChange=[
                vim.vm.device.VirtualDeviceSpec(operation="edit", device=vim.vm.device.VirtualE1000(key=4000))
            ]
        )
    ),
    "VirtualMachine.Config.Rename": lambda vm: vm.Rename_Task("other"),
}


@pytest.mark.parametrize("privilege", list(CALLS))
def test_a_call_without_its_privilege_is_refused_by_name(connect: Any, privilege: str) -> None:
    vm = connect("looker").content.searchIndex.FindByInventoryPath("Vienna/dc1/vm/prod/still")
    with pytest.raises(vim.fault.NoPermission) as caught:
        CALLS[privilege](vm)
    assert caught.value.privilegeId == privilege
    assert caught.value.object == vm
    assert list(caught.value.missingPrivileges[0].privilegeIds) == [privilege]


def test_a_privilege_that_is_held_is_enough(connect: Any, si: Any, vm: Any) -> None:
    mine = connect("snapper").content.searchIndex.FindByInventoryPath(f"Vienna/dc1/vm/prod/{vm.name}")
    WaitForTask(mine.CreateSnapshot_Task("mine", "", False, False))
    with pytest.raises(vim.fault.NoPermission):
        mine.RemoveAllSnapshots_Task()
    WaitForTask(vm.RemoveAllSnapshots_Task())


def test_privileges_can_be_asked_for_in_bulk(connect: Any, lab: Lab) -> None:
    wanted = ["System.View", "VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot"]
    for user, held in (("snapper", [True, True, False]), ("looker", [True, False, False]), (None, [True] * 3)):
        instance = connect(user)
        key = instance.content.sessionManager.currentSession.key
        entities = [instance.content.rootFolder, instance.content.searchIndex.FindByInventoryPath("Vienna/dc1")]
        answer = instance.content.authorizationManager.HasPrivilegeOnEntities(entities, key, wanted)
        assert [one.entity for one in answer] == entities
        for one in answer:
            assert [(each.privId, each.isGranted) for each in one.privAvailability] == list(
                zip(wanted, held, strict=True)
            )
