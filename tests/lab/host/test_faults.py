"""The host's faults; those of NFC are with its protocol."""

from collections.abc import Callable

import pytest

from snapferry.lab.host import HostError, HostService

from ...conftest import wait_for

MIB = 1 << 20
BLOCK = 64 << 10
NewVm = Callable[..., None]


def test_false_changes_name_more_than_changed_and_miss_nothing(service: HostService, new_vm: NewVm) -> None:
    new_vm(16 * MIB)
    service.set_change_tracking("vm-1", enabled=True, immediate=True)
    (disk,) = service.change_tracking("vm-1")["disks"]
    base = str(disk["change_id"])

    def blocks() -> set[int]:
        page = service.changed_areas("vm-1", 2000, None, "*", 0, 2000)
        if not page["areas"]:  # now and then a page is empty though more follow
            page = service.changed_areas("vm-1", 2000, None, "*", page["length"], 2000)
        return {one for start, length in page["areas"] for one in range(start // BLOCK, -(-(start + length) // BLOCK))}

    true = blocks()
    assert service.changed_areas("vm-1", 2000, None, base, 0, 2000)["areas"] == []
    service.set_fault("false_changes", {"blocks": 50})
    assert blocks() > true
    assert blocks() == blocks()


def test_a_vm_whose_delta_has_eaten_the_datastore_is_paused_until_its_snapshot_goes(
    service: HostService, new_vm: NewVm
) -> None:
    new_vm(16 * MIB, rate_bytes=20 * MIB)
    service.power_on("vm-1")
    service.create_snapshot("vm-1", "snapshot-1")
    service.set_fault("datastore_full", {"free_bytes": MIB})
    wait_for(lambda: not service.free_bytes("san1", 1 << 40), 30, "the delta eats the datastore")
    seen = [-1]

    def paused() -> bool:
        seen.append(service.last_write("vm-1"))
        return seen[-1] == seen[-2]  # what was under way when the space ended is done

    wait_for(paused, 30, "the VM is paused")
    service.remove_snapshot("vm-1", "snapshot-1")
    wait_for(lambda: service.last_write("vm-1") > seen[-1], 30, "the VM goes on")


def test_a_fault_lets_as_many_occasions_pass_as_told(service: HostService) -> None:
    service.set_fault("nfc_open", {"skip": 2, "times": 1})
    assert [service.faults.take("nfc_open") is not None for _ in range(4)] == [False, False, True, False]


def test_a_fault_that_isnt_there_or_has_no_such_argument_is_refused(service: HostService) -> None:
    for name, arguments in (("earthquake", {}), ("leaf_busy", {"times": 1})):
        with pytest.raises(HostError):
            service.set_fault(name, arguments)
