"""A base that change tracking may lie about isn't trusted, and the reason has a name."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapferry.assess import estimate
from snapferry.doubt import FIXED_BUILD, History, Reason, doubt_of
from snapferry.plan import ChangesBy
from snapferry.record import BaseState, DiskRecord
from snapferry.vsphere.models import PowerState, SourceDisk, SourceVm

UUID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63"
OTHER = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 64"
TAKEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
RECORD = DiskRecord(
    image_id=7, image_name="web01-disk-0", disk_uuid="6000C29a", key=2000, label="Hard disk 1", place="pvscsi0:0",
    capacity_bytes=1 << 30, state=BaseState.WARM, change_id=f"{UUID}/81", snapshot="snapshot-3", taken=TAKEN, round=3,
)  # fmt: skip
DISK = SourceDisk(
    key=2000, label="Hard disk 1", capacity_bytes=1 << 30, backing_uuid="6000C29a", file_name="[san1] a/a.vmdk",
    datastore="san1", datastore_kind="vmfs6", controller="pvscsi", controller_bus=0, unit=0, change_id=f"{UUID}/82",
    mode="persistent",
)  # fmt: skip
VM = SourceVm(
    moref="vm-7", name="web01", instance_uuid="5000", bios_uuid="4200", path="/Vienna/dc1/vm/prod/web01",
    vcenter_uuid="1", power=PowerState.ON, host="esx1", host_version="8.0.3", host_build=24022510, cpus=2,
    cores_per_socket=1, memory_mib=2048, firmware="efi", secure_boot=False, guest_id="debian12_64Guest",
    guest_full_name="Debian GNU/Linux 12", host_name=None, tools="running", hardware_version=19, change_tracking=True,
    change_tracking_supported=True, consolidation_needed=False, is_template=False, annotation="",
    boot_time=TAKEN - timedelta(days=3), disks=(DISK,), nics=(),
)  # fmt: skip


def doubt(
    record: dict[str, Any] = {},  # noqa: B006
    disk: dict[str, Any] = {},  # noqa: B006
    vm: dict[str, Any] = {},  # noqa: B006
    history: History = History(),  # noqa: B008
) -> Reason | None:
    """The reason, where RECORD, DISK and VM are changed in these fields."""
    found = doubt_of(RECORD.model_copy(update=record), DISK.model_copy(update=disk), VM.model_copy(update=vm), history)
    assert found is None or (found.text and not found.text.endswith("."))
    return found.reason if found else None


@pytest.mark.parametrize("sequence", [81, 82, 5000])
def test_a_base_of_the_same_tracking_is_trusted(sequence: int) -> None:
    assert doubt(disk={"change_id": f"{UUID}/{sequence}"}) is None


def test_an_image_without_a_base_is_in_no_doubt() -> None:
    assert doubt({"state": BaseState.EMPTY, "change_id": None, "taken": None}) is None


@pytest.mark.parametrize(
    ("record", "disk", "reason"),
    [
        ({"state": BaseState.DIVERGED, "change_id": None}, {}, Reason.DIVERGED),
        ({}, {"change_id": None}, Reason.TRACKING_OFF),
        ({}, {"change_id": ""}, Reason.TRACKING_OFF),
        ({"change_id": None}, {}, Reason.TRACKING_OFF),
        ({}, {"change_id": "garbage"}, Reason.CHANGES_UNKNOWN),
        ({"change_id": "*"}, {}, Reason.CHANGES_UNKNOWN),
        ({}, {"change_id": f"{OTHER}/82"}, Reason.TRACKING_RESET),
        ({}, {"change_id": f"{UUID}/80"}, Reason.WENT_BACK),
        ({}, {"capacity_bytes": 2 << 30}, Reason.RESIZED),
        ({}, {"backing_uuid": "6000C29b"}, Reason.SWAPPED),
        ({"taken": None}, {}, Reason.HISTORY_UNKNOWN),
        ({"state": BaseState.PARTIAL}, {"change_id": f"{OTHER}/82"}, Reason.TRACKING_RESET),
    ],
)
def test_another_disk_or_another_tracking_is_doubted(
    record: dict[str, Any], disk: dict[str, Any], reason: Reason
) -> None:
    assert doubt(record, disk) is reason


def test_a_comparison_trusts_nothing_and_so_doubts_only_an_image_that_diverged() -> None:
    gone, crash = DISK.model_copy(update={"change_id": None}), History(reverts=1, events=("VmRestartedByHAEvent",))
    assert doubt_of(RECORD, gone, VM, crash, ChangesBy.COMPARE) is None
    diverged = doubt_of(RECORD.model_copy(update={"state": BaseState.DIVERGED}), gone, VM, crash, ChangesBy.COMPARE)
    assert diverged and diverged.reason is Reason.DIVERGED


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (History(), None),
        (History(events=("VmRestartedByHAEvent",)), None),  # what was written lies in the delta file all the same
        (History(reverts=1), Reason.REVERTED),
        (History(gap="vCenter has 1000 or more events"), Reason.HISTORY_UNKNOWN),
    ],
)
def test_delta_files_are_wrong_of_nothing_but_a_vm_that_went_back(history: History, reason: Reason | None) -> None:
    old = VM.model_copy(update={"host_version": "5.5.0"})
    untracked = DISK.model_copy(update={"change_id": None})
    found = doubt_of(RECORD.model_copy(update={"change_id": None}), untracked, old, history, ChangesBy.DELTA_FILES)
    assert (found.reason if found else None) is reason


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (History(reverts=1), Reason.REVERTED),
        (History(gap="vCenter has 1000 or more events"), Reason.HISTORY_UNKNOWN),
        (History(events=("VmRestartedOnAlternateHostEvent",)), Reason.HOST_CRASHED),
        (History(events=("VmPoweredOnEvent", "VmRestartedByHAEvent")), Reason.HOST_CRASHED),
        (History(events=("VmPoweredOffEvent", "VmPoweredOnEvent", "VmMigratedEvent", "VmRelocatedEvent")), None),
    ],
)
def test_what_happened_to_the_vm_since_the_base_can_void_it(history: History, reason: Reason | None) -> None:
    assert doubt(history=history) is reason


@pytest.mark.parametrize(
    ("boot_time", "reason"),
    [
        (TAKEN - timedelta(seconds=1), None),  # only the host's management network was gone
        (TAKEN + timedelta(seconds=1), Reason.HOST_CRASHED),
        (None, Reason.HOST_CRASHED),  # it is off now
    ],
)
def test_a_lost_host_is_a_crash_where_the_vm_stopped_with_it(boot_time: datetime | None, reason: Reason | None) -> None:
    assert doubt(vm={"boot_time": boot_time}, history=History(events=("VmDisconnectedEvent",))) is reason


@pytest.mark.parametrize(
    ("version", "build", "reason"),
    [
        ("5.5.0", 9999999, Reason.OLD_HOST),
        ("6.0.0", FIXED_BUILD - 1, Reason.OLD_HOST),
        ("6.0.0", FIXED_BUILD, None),
        ("6.7.0", 1, None),
        ("10.0.0", 1, None),
        ("", 0, None),  # the user may not see the host
    ],
)
def test_a_host_older_than_the_fixed_builds_is_doubted(version: str, build: int, reason: Reason | None) -> None:
    assert doubt(vm={"host_version": version, "host_build": build}) is reason


def test_the_estimate_of_a_vm_on_such_a_host_has_the_full_copy_in_its_downtime() -> None:
    good, old = estimate(VM), estimate(VM.model_copy(update={"host_version": "5.5.0", "host_build": 2068190}))
    assert old.parts["last changes"] == old.base_seconds > good.parts["last changes"]
    assert any("in full" in note and "5.5.0" in note for note in old.notes)
    assert not any("in full" in note for note in good.notes)
