"""What can go wrong while a VM moves, each by its name; and the operator who goes on until it is moved."""

import itertools
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

from snapferry import opennebula, vsphere
from snapferry.cutover import cut_over
from snapferry.errors import RolledBack, SnapferryError
from snapferry.lab import Lab
from snapferry.migration import Migration
from snapferry.prepare import prepare
from snapferry.record import Phase
from snapferry.rounds import run_round
from snapferry.watch import Watch

MOST_STEPS = 24
"""A move tells about so many steps; a fault is armed as one of them begins."""
MOST_ROUNDS = 4
VM = "<the VM's name>"
"""Stands in a scene's arguments."""


class Scene(NamedTuple):
    """One fault of the lab.

    Attributes:
        fault, arguments: as `LabControl.set_fault` takes them.
        skips: how many occasions may pass before it strikes; drawn by the seed.
        for_good: a person has to put things right: the next run may refuse, too, but in a named way.
    """

    fault: str
    arguments: Mapping[str, Any] = {}
    skips: int = 0
    for_good: bool = False


def _each(prefix: str, fault: str, methods: str, more: Mapping[str, Any] | None = None) -> dict[str, Scene]:
    """A scene for each method."""
    return {f"{prefix}-{one}": Scene(fault, {"method": one, **(more or {})}, skips=3) for one in methods.split()}


VCENTER_CALLS = (
    "RetrieveServiceContent Login CreateContainerView RetrievePropertiesEx DestroyView CurrentTime "
    "HasPrivilegeOnEntities ReconfigVM_Task CreatePropertyCollector CreateFilter WaitForUpdatesEx "
    "DestroyPropertyCollector CreateSnapshot_Task RemoveSnapshot_Task QueryChangedDiskAreas RetrieveInternalContent "
    "NfcRandomAccessOpenReadonly ShutdownGuest QueryEvents PowerOnVM_Task"
)
TARGET_CALLS = (
    "templatepool.info vnpool.info vn.info datastorepool.info template.allocate template.info template.update "
    "template.lock imagepool.info image.allocate image.info image.enable image.update vn.add_ar template.unlock "
    "vmpool.infoextended template.instantiate vm.info vm.action"
)
"""What a move calls; `test_every_call_of_a_move_is_in_the_list` compares."""

SCENES: dict[str, Scene] = {
    # the hosts
    "nfc_connect": Scene("nfc_connect", {"times": 2}, skips=4),
    "nfc_ticket": Scene("nfc_ticket", {"times": 2}, skips=4),
    "nfc_allocation": Scene("nfc_allocation", {"times": 3}, skips=4),
    "nfc_open": Scene("nfc_open", {"times": 2}, skips=4),
    "nfc_read": Scene("nfc_read", {"times": 3}, skips=9),
    "nfc_cut": Scene("nfc_cut", {"times": 3, "after_bytes": 300_000}, skips=2),
    "nfc_stall": Scene("nfc_stall", {"after_bytes": 200_000, "seconds": 1}, skips=2),
    "nfc_delay": Scene("nfc_delay", {"seconds": 0.1}),
    "leaf_busy": Scene("leaf_busy", {"seconds": 2}),
    "false_changes": Scene("false_changes", {"blocks": 40}),
    "datastore_full": Scene("datastore_full", {"free_bytes": 100_000}),
    # vCenter
    "quiesce": Scene("task", {"method": "CreateSnapshot_Task", "fault": "ApplicationQuiesceFault"}, skips=2),
    "no_room_for_a_snapshot": Scene("task", {"method": "CreateSnapshot_Task", "fault": "NoDiskSpace"}, skips=2),
    "snapshot_stays": Scene("task", {"method": "RemoveSnapshot_Task", "fault": "SnapshotFault"}, skips=2),
    "other_task": Scene("task", {"method": "CreateSnapshot_Task", "fault": "TaskInProgress"}, skips=2),
    "slow_snapshot": Scene("slow_task", {"method": "CreateSnapshot_Task", "seconds": 1}, skips=2),
    "slow_vcenter": Scene("slow", {"seconds": 0.3, "times": 4}, skips=40),
    "no_tools": Scene("method", {"method": "ShutdownGuest", "fault": "ToolsUnavailable"}),
    "shutdown_hangs": Scene("shutdown_hangs", {"vm": VM}),
    "consolidation": Scene("consolidation", {"vm": VM}, skips=2),
    "changes_unknown": Scene("method", {"method": "QueryChangedDiskAreas", "fault": "FileFault"}, skips=5),
    "leaf_locked": Scene("method", {"method": "QueryChangedDiskAreas", "fault": "FileLocked"}, skips=5),
    "session": Scene("session", {}, skips=60),
    # other people
    "backup_snapshot": Scene("backup_snapshot", {"vm": VM, "method": "CreateSnapshot_Task"}, skips=2),
    "backup_during_the_copy": Scene("backup_snapshot", {"vm": VM, "method": "NfcRandomAccessOpenReadonly"}, skips=4),
    "reset_change_tracking": Scene("reset_change_tracking", {"vm": VM}),
    "storage_vmotion": Scene("storage_vmotion", {"vm": VM}),
    "storage_vmotion_during_the_copy": Scene(
        "storage_vmotion", {"vm": VM, "method": "NfcRandomAccessOpenReadonly"}, skips=4
    ),
    "ha_power_on": Scene("ha_power_on", {"vm": VM, "method": "NfcRandomAccessOpenReadonly", "times": 9}),
    "ha_power_on_at_the_end": Scene("ha_power_on", {"vm": VM, "method": "RetrievePropertiesEx", "times": 99}),
    "power_off": Scene("power_off", {"vm": VM}),
    "guest_unmaps": Scene("guest_unmaps", {"vm": VM, "method": "QueryChangedDiskAreas"}, skips=4),
    # OpenNebula
    "image_error": Scene("one_image_error", {"message": "no route to the storage"}, skips=1),
    "prolog": Scene("one_prolog"),
    "boot": Scene("one_boot"),
    "unknown_state": Scene("one_unknown_state", {"lcm_state": 70}),
    "slow_frontend": Scene("one_slow", {"seconds": 0.3, "times": 4}, skips=40),
    "frontend_down": Scene("one_down", {"seconds": 1.5}),
    "record_wiped": Scene("one_record_wiped", {"vm": VM}, skips=20, for_good=True),
    "record_edited": Scene("one_record_edited", {"vm": VM}, skips=20, for_good=True),
}
"""The lab's faults, one by one."""

ANY_TIME = {
    "nfc_delay", "leaf_busy", "false_changes", "datastore_full", "slow", "one_slow", "one_down", "session",
    "reset_change_tracking", "storage_vmotion", "power_off", "one_record_wiped", "one_record_edited",
}  # fmt: skip
"""Faults that strike whenever they are set; the others wait for an occasion, which may have been the last one."""

CALL_SCENES: dict[str, Scene] = {
    **_each("fault", "method", VCENTER_CALLS, {"fault": "HostCommunication"}),
    **_each("drop", "drop", VCENTER_CALLS, {"when": "before"}),
    **_each("drop_answer", "drop", VCENTER_CALLS, {"when": "after"}),
    **_each("refuse", "one_refuse", TARGET_CALLS, {"message": "Not now."}),
    **_each("drop", "one_drop", TARGET_CALLS),
    **_each("drop_answer", "one_drop_answer", TARGET_CALLS),
}
"""Every call that a move makes fails, gets lost, or has its answer lost."""


ALL_SCENES = SCENES | CALL_SCENES


def arm(lab: Lab, scene: Scene, vm: str, rng: Random) -> None:
    """Sets the scene's fault for this VM."""
    arguments = {name: vm if value is VM else value for name, value in scene.arguments.items()}
    if scene.skips:
        arguments["skip"] = rng.randrange(scene.skips + 1)
    lab.control.set_fault(scene.fault, **arguments)


def move(migration: Migration, on_step: Callable[[str, str], None] | None = None) -> None:
    """The operator's procedure, from wherever the record says that it stands."""
    if migration.record is None or migration.record.phase not in (Phase.CUTTING_OVER, Phase.MIGRATED):
        prepare(migration, Watch(on_step=on_step))
        for _ in range(MOST_ROUNDS):
            done = run_round(migration, Watch(on_step=on_step))
            if not done.verdict or done.verdict.decision != "another":
                break
    cut_over(migration, Watch(on_step=on_step))


def arming(act: Callable[[], None], step: int) -> Callable[[str, str], None]:
    """Tells a watch to act once, as the step of that number begins."""
    numbers = itertools.count()

    def look(_: str, __: str) -> None:
        if next(numbers) == step:
            act()

    return look


def assert_named(error: SnapferryError) -> None:
    """An operator can do something with this error."""
    assert error.cause and error.next_step, f"{type(error).__name__}: what should the operator do? {error}"


def assert_in_service(lab: Lab, vm: str) -> None:
    """Exactly one end serves the VM: the source as it was, or the machine at the target."""
    now = lab.control.inventory()
    states = [one["lcm_state"] for one in now.machines if one["name"] == vm]
    (source,) = (one for name, one in now.vms.items() if name in (vm, f"{vm}-migrated"))
    if 3 in states:
        assert source.power == "poweredOff"
    else:
        assert (source.power, source.nics_start_connected) == ("poweredOn", (True,))


def expire_lease(migration: Migration) -> None:
    """Sets the VM free, as the end of a dead run's term would."""
    if migration.record is not None:
        free = {"SNAPFERRY_LEASE": {"TOKEN": "", "HOLDER": ""}}
        opennebula.update_template(migration.target, migration.record.template_id, free)
        opennebula.unlock_template(migration.target, migration.record.template_id)


def assert_source_untouched(site: Lab, vm: str) -> None:
    """The source runs, and nothing of ours hangs on it."""
    now = site.control.inventory().vms[vm]
    assert (now.power, now.nics_start_connected, now.snapshots) == ("poweredOn", (True,), ())


def backed_up(site: Lab, vm: str) -> bool:
    """Whether a backup job's snapshot hangs on the source now."""
    vms = site.control.inventory().vms
    return any("backup" in name for one in (vm, f"{vm}-migrated") if one in vms for name in vms[one].snapshots)


def has_room(migration: Migration) -> bool:
    """Whether vCenter tells that the source's datastores aren't full; it asks the hosts now and then."""
    spaces = vsphere.datastore_space(migration.source, migration.vm).values()
    return all(one.free_share > migration.plan.snapshot.least_free for one in spaces)


def go_on(reopen: Callable[[], Migration]) -> Migration:
    """Runs again, as another worker, until the VM is moved; an attempt that died may first be rolled back."""
    for _ in range(2):
        migration = reopen()
        expire_lease(migration)
        try:
            move(migration)
            return migration
        except RolledBack as error:
            assert_named(error)
    migration = reopen()
    move(migration)
    return migration


def assert_nothing_left(lab: Lab, vm: str, disks: int) -> None:
    """Nothing of ours hangs at either end but what a finished move leaves."""
    now = lab.control.inventory()
    source = now.vms[f"{vm}-migrated"]
    assert (source.power, source.snapshots, source.consolidation_needed) == ("poweredOff", (), False)
    templates = [one["id"] for one in now.templates if one["name"] == vm]
    images = [one["id"] for one in now.images if one["name"].startswith(f"{vm}-disk")]
    machines = [one["lcm_state"] for one in now.machines if one["name"] == vm]
    assert (len(templates), len(images), machines) == (1, disks, [3])
    assert not [one for one in now.locks if one["id"] in templates + images]
