"""The template says all that the machine needs, whatever the source is like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.opennebula.attributes import render
from snapferry.opennebula.hardware import build_template, disk_target
from snapferry.plan import MigrationPlan
from tests.opennebula.conftest import make_disk, make_vm

PLAN = MigrationPlan(vm="web01", image_datastore="default")


def test_a_bios_linux_gets_its_cpus_memory_disks_and_agent() -> None:
    vm = make_vm()
    nics = [{"NETWORK_ID": "0", "MAC": "00:50:56:aa:bb:cc", "MODEL": "virtio"}]
    built = build_template(vm, PLAN, [(vm.disks[0], 7), (vm.disks[1], 3)], nics, {"SNAPFERRY": {"ID": "m1"}})
    assert (built["CPU"], built["VCPU"], built["MEMORY"], built["HYPERVISOR"]) == ("4", "4", "2048", "kvm")
    assert built["TOPOLOGY"] == {"SOCKETS": "2", "CORES": "2", "THREADS": "1"}
    assert built["OS"] == {"ARCH": "x86_64", "MACHINE": "q35", "FIRMWARE": "BIOS", "BOOT": "disk0"}
    assert built["DISK"] == [
        {"IMAGE_ID": "7", "DEV_PREFIX": "vd", "TARGET": "vda"},
        {"IMAGE_ID": "3", "DEV_PREFIX": "vd", "TARGET": "vdb"},
    ]
    assert built["NIC"] == nics
    assert built["FEATURES"] == {
        "ACPI": "yes", "APIC": "yes", "GUEST_AGENT": "yes", "LOCALTIME": "no", "HYPERV": "no",
    }  # fmt: skip
    assert built["CONTEXT"] == {"NETWORK": "YES", "HOSTNAME": "web01.example.org"}
    assert built["SNAPFERRY"] == {"ID": "m1"}
    assert isinstance(built["SNAPFERRY_SOURCE"], dict)
    assert built["SNAPFERRY_SOURCE"]["GUEST_OS"] == "Debian GNU/Linux 12 (64-bit)"


@pytest.mark.parametrize(("secure", "expected"), [(True, "YES"), (False, "NO")])
def test_uefi_is_kept_with_and_without_secure_boot(secure: bool, expected: str) -> None:
    os = build_template(make_vm(firmware="efi", secure_boot=secure), PLAN, [], [], {})["OS"]
    assert os == {"ARCH": "x86_64", "MACHINE": "q35", "FIRMWARE": "UEFI", "FIRMWARE_SECURE": expected}


def test_windows_gets_local_time_and_its_enlightenments() -> None:
    features = build_template(make_vm(guest_id="windows2019srv_64Guest"), PLAN, [], [], {})["FEATURES"]
    assert isinstance(features, dict)
    assert (features["LOCALTIME"], features["HYPERV"]) == ("yes", "yes")


def test_disks_on_scsi_name_the_bus() -> None:
    vm = make_vm()
    built = build_template(vm, PLAN, [(vm.disks[0], 7)], [], {}, dev_prefix="sd")
    assert isinstance(built["OS"], dict)
    assert built["OS"]["SD_DISK_BUS"] == "scsi"
    assert built["DISK"] == [{"IMAGE_ID": "7", "DEV_PREFIX": "sd", "TARGET": "sda"}]


@given(st.integers(1, 768), st.integers(-1, 800))
def test_the_topology_always_multiplies_to_the_cpus(cpus: int, cores: int) -> None:
    topology = build_template(make_vm(cpus=cpus, cores_per_socket=cores), PLAN, [], [], {})["TOPOLOGY"]
    assert isinstance(topology, dict)
    assert int(topology["SOCKETS"]) * int(topology["CORES"]) * int(topology["THREADS"]) == cpus


@given(st.text(max_size=50), st.text(max_size=200), st.text(max_size=50))
def test_any_name_note_and_host_name_can_be_rendered(name: str, note: str, host: str) -> None:
    vm = make_vm(name=name, annotation=note, host_name=host, guest_full_name=name)
    built = build_template(vm, PLAN, [(vm.disks[0], 7)], [], {})
    assert render(built)
    assert isinstance(built["CONTEXT"], dict)
    assert "$" not in built["CONTEXT"]["HOSTNAME"]


def test_disks_are_named_as_linux_does_past_the_alphabet() -> None:
    names = [disk_target("vd", number) for number in (0, 1, 25, 26, 27, 51, 52, 701, 702)]
    assert names == ["vda", "vdb", "vdz", "vdaa", "vdab", "vdaz", "vdba", "vdzz", "vdaaa"]


def test_many_disks_each_get_a_target_of_their_own() -> None:
    disks = [(make_disk(2000 + number), number) for number in range(60)]
    built = build_template(make_vm(), PLAN, disks, [], {})["DISK"]
    assert isinstance(built, list)
    assert len({one["TARGET"] for one in built}) == 60
