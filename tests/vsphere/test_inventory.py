"""The inventory: found by name, path or UUID, and read in bulk."""

from collections.abc import Callable

import pytest

from snapferry.errors import PlanError
from snapferry.lab import Lab
from snapferry.vsphere import (
    PowerState,
    Session,
    SourceVm,
    VmGone,
    datastore_space,
    find_vm,
    list_vms,
    nfc_ticket,
    read_vm,
)

pytestmark = pytest.mark.slow
Find = Callable[[str], SourceVm]
MIB = 1 << 20


def test_a_vm_is_read_with_all_that_a_move_needs(session: Session, find: Find) -> None:
    vm = find("showcase")
    assert vm.path == "/Vienna/dc1/vm/prod/web/showcase"
    assert (vm.cpus, vm.cores_per_socket, vm.memory_mib) == (4, 2, 3072)
    assert (vm.firmware, vm.secure_boot, vm.hardware_version) == ("efi", True, 19)
    assert (vm.power, vm.tools, vm.host_name) == (PowerState.ON, "running", "showcase.lab.test")
    assert (vm.host, vm.guest_id) == ("esx1.lab.test", "debian12_64Guest")
    assert vm.key == f"{session.vcenter_uuid}/{vm.instance_uuid}"
    assert (vm.change_tracking, vm.change_tracking_supported, vm.consolidation_needed) == (False, True, False)
    assert vm.boot_time is not None
    assert vm.snapshots == ()
    assert vm.devices == ()


def test_its_disks_are_known_by_place_size_and_datastore(find: Find) -> None:
    first, second = find("showcase").disks
    assert (first.place, first.capacity_bytes, first.datastore) == ("pvscsi0:0", 4 * MIB, "san1")
    assert (second.place, second.capacity_bytes, second.datastore_kind) == ("sata0:0", 2 * MIB + 512, "vmfs6")
    assert first.file_name == "[san1] showcase/showcase.vmdk"
    assert first.backing_uuid != second.backing_uuid
    assert (first.mode, first.sharing, first.backing_type, first.change_id) == ("persistent", False, "flat", None)


def test_its_network_cards_have_network_mac_and_address(find: Find) -> None:
    first, second = find("showcase").nics
    assert (first.mac, first.network, first.adapter) == ("00:50:56:0a:00:01", "VM Network", "vmxnet3")
    assert (first.connected, first.start_connected, first.ips) == (True, True, ("10.0.5.7",))
    assert (second.network, second.adapter, second.start_connected) == ("storage", "e1000e", False)
    assert second.ips == ()


def test_a_vm_is_found_by_name_path_and_instance_uuid(session: Session, find: Find) -> None:
    vm = find("showcase")
    assert find_vm(session, vm.path) == vm
    assert find_vm(session, vm.instance_uuid.upper()) == vm


def test_a_name_with_a_slash_is_found_as_people_write_it(find: Find) -> None:
    vm = find("with/slash")
    assert vm.name == "with/slash"
    assert vm.path == "/Vienna/dc1/vm/prod/with%2fslash"


def test_an_unknown_vm_is_refused_with_the_names_that_are_near(session: Session) -> None:
    with pytest.raises(PlanError) as caught:
        find_vm(session, "Showcas")
    assert caught.value.exit_code == 2
    assert "'Showcas'" in caught.value.cause
    assert "Near it: showcase." in caught.value.next_step


def test_an_unknown_path_is_refused_with_the_paths_that_are_near(session: Session) -> None:
    with pytest.raises(PlanError, match="Near it: /Vienna/dc1/vm/prod/web/showcase"):
        find_vm(session, "/Vienna/dc1/vm/prod/showcase")


def test_an_ambiguous_name_is_refused_with_the_paths_to_choose_from(session: Session) -> None:
    with pytest.raises(PlanError) as caught:
        find_vm(session, "twin")
    assert "/Vienna/dc1/vm/prod/twin" in caught.value.next_step
    assert "/Vienna/dc1/vm/test/twin" in caught.value.next_step
    assert find_vm(session, "/Vienna/dc1/vm/test/twin").path == "/Vienna/dc1/vm/test/twin"


def test_every_vm_is_listed_in_a_few_calls_whatever_their_number(lab: Lab, session: Session) -> None:
    session.keep_alive()
    before = lab.control.counters().calls
    vms = list_vms(session)
    after = lab.control.counters().calls
    assert len([vm for vm in vms if vm.path.startswith("/Vienna/dc1/vm/many/")]) == 120
    assert [vm.path for vm in vms] == sorted(vm.path for vm in vms)
    assert all(vm.disks and vm.host == "esx1.lab.test" for vm in vms)
    made = sum(after.values()) - sum(before.values())
    assert made <= 6, {name: after[name] - before.get(name, 0) for name in after}


def test_a_listed_vm_is_the_same_as_one_that_is_read_alone(session: Session) -> None:
    listed = next(vm for vm in list_vms(session) if vm.name == "showcase")
    assert read_vm(session, listed.moref) == listed


def test_a_vm_that_is_gone_is_said_to_be(session: Session) -> None:
    with pytest.raises(VmGone, match="vm-999999"):
        read_vm(session, "vm-999999")


def test_the_release_of_a_vms_host_is_told(session: Session, find: Find) -> None:
    vm = find("showcase")
    assert (vm.host_version, vm.host_build) == ("8.0.3", 24022510)


def test_the_free_space_of_a_vms_datastore_is_told(session: Session, find: Find) -> None:
    (space,) = datastore_space(session, find("showcase")).values()
    assert 5 << 30 < space.free_bytes < space.capacity_bytes == 10 << 30


def test_a_ticket_opens_one_disk_at_the_vms_host(session: Session, find: Find) -> None:
    vm = find("ticket")
    first = nfc_ticket(session, vm.moref, vm.disks[0].key)
    second = nfc_ticket(session, vm.moref, vm.disks[0].key)
    assert first.session_id != second.session_id
    assert (first.host, first.service) == ("127.0.0.1", "vpxa-nfc")
    assert first.port > 0
    assert len(first.ssl_thumbprint.split(":")) == 20
