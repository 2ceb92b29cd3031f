"""Concerns: what the operator is told before a move."""

from datetime import UTC, datetime
from typing import Any

import pytest

from snapferry.vsphere import PowerState, Snapshot, SourceDisk, SourceNic, SourceVm, concerns

CHANGE_ID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81"
DISK = SourceDisk(
    key=2000,
    label="Hard disk 1",
    capacity_bytes=1 << 30,
    backing_uuid="6000C29a-1",
    file_name="[san1] web01/web01.vmdk",
    datastore="san1",
    datastore_kind="vmfs6",
    controller="pvscsi",
    controller_bus=0,
    unit=0,
    change_id=CHANGE_ID,
    mode="persistent",
)
NIC = SourceNic(
    key=4000,
    mac="00:50:56:aa:00:01",
    network="VM Network",
    adapter="vmxnet3",
    connected=True,
    start_connected=True,
    ips=("10.0.5.7",),
)
VM = SourceVm(
    moref="vm-1",
    name="web01",
    instance_uuid="5029a",
    bios_uuid="4229a",
    path="/Vienna/dc1/vm/prod/web01",
    vcenter_uuid="vc",
    power=PowerState.ON,
    host="esx1.lab.test",
    cpus=2,
    cores_per_socket=1,
    memory_mib=2048,
    firmware="bios",
    secure_boot=False,
    guest_id="debian12_64Guest",
    guest_full_name="Debian GNU/Linux 12 (64-bit)",
    host_name="web01",
    tools="running",
    hardware_version=19,
    change_tracking=True,
    change_tracking_supported=True,
    consolidation_needed=False,
    is_template=False,
    annotation="",
    boot_time=None,
    disks=(DISK,),
    nics=(NIC,),
)
FOREIGN = Snapshot(moref="snapshot-9", name="before update", description="", created=datetime(2026, 5, 1, tzinfo=UTC))
OURS = FOREIGN.model_copy(update={"name": "snapferry-abc-r1"})


def vm(**changes: Any) -> SourceVm:
    return VM.model_copy(update=changes)


def with_disk(**changes: Any) -> SourceVm:
    return vm(disks=(DISK.model_copy(update=changes),))


def named(machine: SourceVm) -> set[tuple[str, str]]:
    return {(one.id, one.severity) for one in concerns(machine)}


def test_a_vm_that_moves_without_trouble_has_no_concern() -> None:
    assert concerns(VM) == []
    assert concerns(vm(snapshots=(OURS,))) == []


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (with_disk(datastore_kind="inaccessible"), ("datastore-missing", "critical")),
        (with_disk(datastore=""), ("datastore-missing", "critical")),
        (with_disk(capacity_bytes=0), ("invalid-disk-capacity", "critical")),
        (with_disk(capacity_bytes=1000), ("invalid-disk-capacity", "critical")),
        (with_disk(backing_type="rdm-physical"), ("rdm", "critical")),
        (with_disk(backing_type="rdm-virtual"), ("rdm", "warning")),
        (with_disk(mode="independent_persistent", change_id=None), ("independent-disk", "critical")),
        (with_disk(sharing=True), ("shared-disk", "critical")),
        (with_disk(change_id=None), ("disk-change-tracking-off", "warning")),
        (vm(disks=()), ("no-disks", "critical")),
        (vm(is_template=True), ("template", "critical")),
        (vm(change_tracking_supported=False), ("change-tracking-unsupported", "critical")),
        (vm(hardware_version=4), ("change-tracking-unsupported", "critical")),
        (vm(change_tracking=False), ("change-tracking-off", "warning")),
        (vm(change_tracking=False, snapshots=(FOREIGN,)), ("snapshots-present", "critical")),
        (vm(snapshots=(FOREIGN,)), ("snapshots-present", "info")),
        (vm(consolidation_needed=True), ("consolidation-needed", "warning")),
        (vm(name="web01\n"), ("name-invalid", "warning")),
        (vm(name="w" * 129), ("name-invalid", "warning")),
        (vm(power=PowerState.SUSPENDED), ("suspended", "warning")),
        (vm(host_name=None), ("host-name-empty", "warning")),
        (vm(tools="not-running"), ("tools-not-running", "warning")),
        (vm(nics=(NIC.model_copy(update={"ips": ()}),)), ("ip-missing", "warning")),
        (vm(guest_id="solaris11_64Guest"), ("guest-unsupported", "warning")),
        (vm(devices=("pci-passthrough",)), ("pci-passthrough", "critical")),
        (vm(devices=("guest-space-low:/boot",)), ("guest-space-low", "critical")),
        (vm(devices=("sriov",)), ("sriov", "warning")),
        (vm(devices=("vtpm",)), ("vtpm", "warning")),
        (vm(devices=("usb",)), ("usb", "warning")),
        (vm(devices=("cpu-affinity",)), ("cpu-affinity", "warning")),
        (vm(devices=("numa-affinity",)), ("numa-affinity", "warning")),
        (vm(devices=("memory-hotplug",)), ("memory-hotplug", "warning")),
        (vm(devices=("fault-tolerance",)), ("fault-tolerance", "info")),
    ],
)
def test_what_stands_in_the_way_is_named_with_its_severity(machine: SourceVm, expected: tuple[str, str]) -> None:
    assert named(machine) == {expected}


def test_every_concern_says_which_vm_and_what_to_do_and_critical_ones_come_first() -> None:
    found = concerns(vm(is_template=True, devices=("fault-tolerance", "usb", "vgpu"), consolidation_needed=True))
    assert [one.severity for one in found] == ["critical", "critical", "warning", "warning", "info"]
    assert all("web01" in one.text and one.next_step for one in found)


def test_what_only_a_running_guest_can_tell_isnt_missed_on_one_that_is_off() -> None:
    assert named(vm(power=PowerState.OFF, tools="not-running", host_name=None)) == set()


def test_a_vm_that_can_go_without_tracking_is_only_warned_of_it() -> None:
    for machine in (vm(change_tracking_supported=False), vm(hardware_version=4)):
        assert [(one.id, one.severity) for one in concerns(machine, tracked=False)] == [
            ("change-tracking-unsupported", "warning")
        ]
    assert concerns(vm(change_tracking=False), tracked=False) == []
