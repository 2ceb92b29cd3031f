"""Every route ends equal; one that fails gives way to another, and both are said and kept in the record."""

from collections.abc import Callable

import pytest

from snapferry.assess import assess
from snapferry.cutover import cut_over
from snapferry.errors import RolledBack
from snapferry.lab import Lab
from snapferry.lab.config import LabConfig, LabDatastore, LabDisk, LabVCenter, LabVm, Workload
from snapferry.lab.kinds import KINDS
from snapferry.prepare import prepare
from snapferry.record import RoundResult
from snapferry.rounds import run_round
from snapferry.status import status
from snapferry.watch import Watch

from .conftest import Ends, small_vm
from .support import assert_equal, warm

pytestmark = pytest.mark.slow


def routes(result: RoundResult | None) -> set[str]:
    assert result
    return {disk.route for disk in result.disks}


def test_a_base_comes_by_export_where_the_plan_asks_for_it_and_changes_come_by_nfc(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab, route="export")
    assert set(assess(migration.source, migration.vm, migration.plan).routes.values()) == {
        "export: the plan asks for it; the whole disk is wanted; else by nfc"
    }
    rounds = warm(migration)
    assert routes(rounds[0]) == {"export"}
    final = cut_over(migration, Watch()).final
    assert routes(rounds[-1]) == routes(final) == {"nfc"}
    assert_equal(lab, migration)
    assert [routes(one) for one in migration.planned.rounds] == [{"export"}, *[{"nfc"}] * len(rounds)]


def test_where_the_nfc_port_is_closed_the_disks_are_exported_and_that_is_said(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    prepare(migration, Watch())
    lab.control.set_fault("nfc_connect", times=10_000)
    told: list[str] = []
    result = run_round(migration, Watch(on_step=lambda name, detail: told.append(detail) if name == "route" else None))
    lab.control.clear_faults()
    assert routes(result) == {"export"}
    assert len(told) == len(result.disks) and all("by export" in one and "nfc failed" in one for one in told)
    assert all("nfc failed" in disk.detour for disk in result.disks)
    assert lab.control.inventory().vms["web01"].snapshots == ()
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def test_a_vm_that_is_off_is_read_through_its_files_where_the_plan_asks_for_it(lab: Lab, ends: Ends) -> None:
    """While it ran, VMFS 6 had locked them; the server ends the session and cuts an answer meanwhile."""
    migration = ends.migration(lab, route="datastore")
    text = assess(migration.source, migration.vm, migration.plan).routes[migration.vm.disks[0].key]
    assert text.startswith("nfc") and "vmfs6 locks a running VM's files" in text
    assert routes(warm(migration)[0]) == {"nfc"}
    lab.control.set_fault("folder_session", skip=3)
    lab.control.set_fault("folder_cut", after_bytes=70_000, times=2)
    final = cut_over(migration, Watch()).final
    assert routes(final) == {"datastore"}
    assert lab.control.counters().folder_bytes > final.changed_bytes
    assert_equal(lab, migration)


def test_files_that_cant_be_had_give_way_to_nfc(lab: Lab, ends: Ends) -> None:
    lab.control.power_off("web01")
    migration = ends.migration(lab, route="datastore")
    prepare(migration, Watch())
    lab.control.set_fault("folder_status", status=500, times=100)
    result = run_round(migration, Watch())
    assert routes(result) == {"nfc"}
    assert all("datastore failed" in disk.detour and "500" in disk.detour for disk in result.disks)


def test_where_no_route_is_left_the_cutover_is_rolled_back_and_status_says_why(lab: Lab, ends: Ends) -> None:
    migration = ends.migration(lab)
    warm(migration)

    def close_all() -> None:
        lab.control.set_fault("nfc_connect", times=10_000)
        lab.control.set_fault("folder_status", status=500, times=10_000)

    with pytest.raises(RolledBack, match="running again") as caught:
        cut_over(migration, Watch(on_step=lambda name, _: close_all() if name == "last changes" else None))
    for route in ("nfc failed", "datastore failed"):
        assert route in str(caught.value)
    now = lab.control.inventory()
    assert (now.vms["web01"].power, now.vms["web01"].snapshots, now.locks) == ("poweredOn", (), ())
    (told,) = status(migration.source, migration.target, "web01")
    assert told.safe and "was rolled back" in told.next and "datastore failed" in told.next

    lab.control.clear_faults()
    again = ends.migration(lab)
    warm(again)
    cut_over(again, Watch())
    assert_equal(lab, again)


def test_a_disk_on_vsan_is_read_by_what_leads_to_it_whatever_the_plan_asks_for_and_that_is_shown(
    make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    disks = tuple(LabDisk(capacity_bytes=64 << 20, data_bytes=2 << 20, datastore=kind) for kind in ("vmfs5", "vsan"))
    quiet = Workload(rate_bytes=200_000, hot_bytes=1 << 20)
    lab = make_lab(on_datastores(small_vm(disks=disks, workload=quiet)))
    migration = ends.migration(lab, route="datastore")
    shown = assess(migration.source, migration.vm, migration.plan).routes
    files, objects = (disk.key for disk in migration.vm.disks)
    assert shown[files] == "datastore: the plan asks for it; vmfs5 doesn't lock frozen files; else by nfc or export"
    assert shown[objects] == (
        "nfc: random reads of a frozen disk, on vsan too; not by datastore, as the plan asks, because a disk on vsan"
        " has no files; else by export"
    )
    prepare(migration, Watch())
    lab.control.set_fault("nfc_connect", times=10_000)
    told: list[str] = []
    base = run_round(migration, Watch(on_step=lambda name, detail: told.append(detail) if name == "route" else None))
    lab.control.clear_faults()
    assert [disk.route for disk in base.disks] == ["datastore", "export"]
    assert [line for line in told if "by export" in line and "nfc failed" in line] == told != []
    final = cut_over(migration, Watch()).final
    assert final and [disk.route for disk in final.disks] == ["datastore", "nfc"]
    assert_equal(lab, migration)


def test_a_datastore_that_answers_500_under_a_running_vm_gives_way_to_nfc(
    make_lab: Callable[[LabConfig], Lab], ends: Ends
) -> None:
    lab = make_lab(on_datastores(small_vm(datastore="vmfs5")))
    migration = ends.migration(lab, route="datastore")
    prepare(migration, Watch())
    lab.control.set_fault("folder_status", status=500, times=10_000)
    base = run_round(migration, Watch())
    assert routes(base) == {"nfc"}
    assert all("datastore failed" in disk.detour and "500" in disk.detour for disk in base.disks)
    lab.control.clear_faults()
    cut_over(migration, Watch())
    assert_equal(lab, migration)


def on_datastores(vm: LabVm) -> LabConfig:
    """A lab with a datastore of each kind, by its name."""
    stores = tuple(LabDatastore(name=kind, kind=kind) for kind in KINDS)
    return LabConfig(vcenter=LabVCenter(datastores=stores, vms=(vm,)))
