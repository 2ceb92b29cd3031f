"""Disks that are grown, added and removed at vCenter between rounds: refused, said, and begun anew."""

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from snapferry.abandon import abandon
from snapferry.cutover import cut_over
from snapferry.errors import Refused
from snapferry.lab import Lab
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.rounds import run_round
from snapferry.watch import Watch

from ..odd import guest_writes
from .conftest import Ends
from .support import assert_equal, migrate

pytestmark = pytest.mark.slow
MIB = 1 << 20
device = vim.vm.device


@pytest.fixture
def source_vm(lab: Lab) -> Iterator[Any]:
    """The VM as an administrator's client has it."""
    ends = lab.endpoints
    instance = SmartConnect(
        host=ends.vcenter_host,
        port=ends.vcenter_port,
        user=ends.vcenter_user,
        pwd=ends.vcenter_password,
        sslContext=ssl.create_default_context(cafile=ends.ca_file),
        httpConnectionTimeout=30,
    )
    yield instance.content.searchIndex.FindByInventoryPath("Vienna/dc1/vm/prod/web01")
    Disconnect(instance)


def disks(vm: Any) -> list[Any]:
    return [one for one in vm.config.hardware.device if isinstance(one, device.VirtualDisk)]


def reconfigure(vm: Any, operation: str, disk: Any, files: str | None = None) -> None:
    spec = device.VirtualDeviceSpec(operation=operation, fileOperation=files, device=disk)
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[spec])))


def grow(vm: Any) -> None:
    disk = disks(vm)[0]
    disk.capacityInBytes += 5 * MIB + 512
    reconfigure(vm, "edit", disk)


def add(vm: Any) -> None:
    backing = device.VirtualDisk.FlatVer2BackingInfo(fileName="", diskMode="persistent", thinProvisioned=True)
    disk = device.VirtualDisk(
        key=-1, controllerKey=disks(vm)[0].controllerKey, capacityInBytes=4 * MIB, capacityInKB=0, backing=backing
    )
    reconfigure(vm, "add", disk, "create")


def remove(vm: Any) -> None:
    reconfigure(vm, "remove", disks(vm)[1], "destroy")


def warm_up(migration: Migration) -> None:
    prepare(migration, Watch())
    run_round(migration, Watch())


@pytest.mark.parametrize("change", [grow, add, remove])
def test_a_disk_that_changes_between_rounds_is_refused_until_the_move_begins_anew(
    change: Callable[[Any], None], lab: Lab, ends: Ends, source_vm: Any
) -> None:
    migration = ends.migration(lab)
    warm_up(migration)
    change(source_vm)
    for step in (run_round, cut_over):
        with pytest.raises(Refused, match="disks changed since the migration began") as refused:
            step(migration, Watch())
        assert "abandon" in refused.value.next_step
    state = lab.control.inventory().vms["web01"]
    assert (state.power, state.snapshots, state.nics_start_connected) == ("poweredOn", (), (True,))
    assert lab.control.inventory().locks == ()
    abandon(migration, Watch())
    again = ends.migration(lab)
    lab.control.power_off("web01")
    lab.control.power_on("web01")  # its guest uses what is new
    guest_writes(lab, 20)
    migrate(again)
    assert [disk.capacity_bytes for disk in again.planned.disks] == [one.capacityInBytes for one in disks(source_vm)]
    assert_equal(lab, again)


def test_a_disk_that_is_added_while_a_round_copies_is_refused_by_the_next_one(
    lab: Lab, ends: Ends, source_vm: Any
) -> None:
    migration = ends.migration(lab)
    warm_up(migration)
    guest_writes(lab, 20)
    result = run_round(migration, Watch(on_step=lambda name, _: add(source_vm) if name == "copying" else None))
    assert (result.kind, len(result.disks)) == ("delta", 2)
    assert lab.control.inventory().vms["web01"].snapshots == ()
    with pytest.raises(Refused, match="disks changed since the migration began"):
        run_round(migration, Watch())


def test_a_disk_doesnt_grow_while_a_round_copies(lab: Lab, ends: Ends, source_vm: Any) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    refused: list[Exception] = []

    def try_to_grow(name: str, _: str) -> None:
        if name == "copying":
            with pytest.raises(vim.fault.InvalidDeviceOperation) as caught:
                grow(source_vm)
            refused.append(caught.value)

    run_round(migration, Watch(on_step=try_to_grow))
    assert len(refused) == 1
    cut_over(migration, Watch())
    assert_equal(lab, migration)
