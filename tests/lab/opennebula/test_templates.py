"""VM templates, and what becomes of one when it is instantiated."""

from typing import Any

import pyone
import pytest

REALISTIC = (
    'NAME="web01"\nCPU="2"\nVCPU="2"\nMEMORY="2048"\nHYPERVISOR="kvm"\n'
    'DISK=[IMAGE_ID="0",DEV_PREFIX="vd",TARGET="vda"]\nDISK=[IMAGE_ID="1",DEV_PREFIX="vd"]\n'
    'NIC=[NETWORK_ID="0",IP="10.0.5.12",MODEL="virtio"]\n'
    'OS=[ARCH="x86_64",BOOT="disk0,nic0",FIRMWARE="UEFI",MACHINE="q35"]\n'
    'FEATURES=[ACPI="yes",GUEST_AGENT="yes",VIRTIO_SCSI_QUEUES="auto"]\nTOPOLOGY=[SOCKETS="1",CORES="2",THREADS="1"]\n'
    'GRAPHICS=[TYPE="VNC",LISTEN="0.0.0.0"]\n'
    'CONTEXT=[NETWORK="YES",SSH_PUBLIC_KEY="$USER[SSH_PUBLIC_KEY]",HOSTNAME="web01"]\n'
    'MIG_KEY="vc1/vm-42"\nMIG_STATE=[PHASE="full",RUN="1"]\n'
)
FAILED = "Error allocating a new virtual machine template. "


def test_a_template_comes_back_as_it_was_given(one: Any) -> None:
    template = one.template.info(one.template.allocate(REALISTIC))
    assert template.NAME == "web01"
    assert template.TEMPLATE["OS"]["BOOT"] == "disk0,nic0"
    assert [disk["IMAGE_ID"] for disk in template.TEMPLATE["DISK"]] == ["0", "1"]
    assert list(template.TEMPLATE) == sorted(template.TEMPLATE)
    assert "NAME" not in template.TEMPLATE


def test_a_template_has_the_elements_of_a_real_one_in_their_order(site: Any, one: Any) -> None:
    one.template.lock(one.template.allocate(REALISTIC), 3, True)
    assert site.elements("template.info", 0) == [
        "ID", "UID", "GID", "UNAME", "GNAME", "NAME", "LOCK", "PERMISSIONS", "REGTIME", "TEMPLATE",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CPU=1\nMEMORY=64\n", "Invalid NAME, it cannot be empty"),
        (
            "NAME=t\nDISK=[IMAGE_ID=1\nNIC=[\n",
            "Parse error: syntax error, unexpected VARIABLE, expecting COMMA or CBRACKET",
        ),
        ("NAME=taken\n", "NAME is already taken by TEMPLATE 0."),
    ],
)
def test_a_bad_template_is_refused(one: Any, text: str, message: str) -> None:
    one.template.allocate("NAME=taken\nCPU=1\n")
    with pytest.raises(pyone.OneInternalException) as raised:
        one.template.allocate(text)
    assert str(raised.value).startswith(f"[one.template.allocate] {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DISK=[IMAGE_ID=9999]\nNIC=[NETWORK_ID=999]\n", "Virtual network with ID: 999 does not exist"),
        ("DISK=[IMAGE_ID=9999]\n", "DISK 0: Image with ID: 9999 does not exist"),
        ("VCPU=3\nTOPOLOGY=[SOCKETS=2,CORES=2,THREADS=1]\n", "Total threads per core and socket needs to match VCPU"),
        ("MEMORY=[ ]\n", "MEMORY attribute must be a positive integer value."),
        ('OS=[BOOT="disk3"]\n', "Wrong OS.BOOT value"),
    ],
)
def test_what_a_template_refers_to_is_checked_only_at_instantiate(site: Any, one: Any, text: str, message: str) -> None:
    number = one.template.allocate("NAME=bad\nCPU=1\n" + ("" if "MEMORY" in text else "MEMORY=64\n") + text)
    before = site.frontend.state()
    with pytest.raises(pyone.OneException) as raised:
        one.template.instantiate(number, "bad", True, "", False)
    assert str(raised.value).startswith(f"[one.template.instantiate] {FAILED}{message}")
    assert type(raised.value) is pyone.OneException
    assert site.frontend.state() == before


def test_instantiate_expands_disks_nics_context_and_boot_order(site: Any, one: Any) -> None:
    site.image(one, "os"), site.image(one, "data")
    vm = one.vm.info(one.template.instantiate(one.template.allocate(REALISTIC), "web01", True, "", False))
    disks, nic, context = vm.TEMPLATE["DISK"], vm.TEMPLATE["NIC"], vm.TEMPLATE["CONTEXT"]
    assert (vm.NAME, vm.STATE, vm.LCM_STATE) == ("web01", 2, 0)
    wanted = {
        "DISK_ID": "0", "IMAGE": "os", "IMAGE_ID": "0", "IMAGE_STATE": "8", "TARGET": "vda", "ORDER": "1",
        "DATASTORE_ID": "1", "TM_MAD": "local", "PERSISTENT": "YES", "SAVE": "YES", "CLONE": "NO", "SIZE": "4",
        "SOURCE": one.image.info(0).SOURCE,
    }  # fmt: skip
    assert {key: disks[0][key] for key in wanted} == wanted
    assert (disks[1]["TARGET"], disks[1]["DISK_ID"], "ORDER" in disks[1]) == ("vdb", "1", False)
    wanted = {
        "NIC_ID": "0", "IP": "10.0.5.12", "MAC": "02:00:0a:00:05:0c", "NETWORK": "lan", "NETWORK_ID": "0", "ORDER": "2",
        "MODEL": "virtio", "TARGET": "one-0-0", "AR_ID": "0", "GATEWAY": "10.0.5.1",
    }  # fmt: skip
    assert {key: nic[key] for key in wanted} == wanted
    wanted = {
        "DISK_ID": "2", "TARGET": "sda", "ETH0_IP": "10.0.5.12", "ETH0_MAC": "02:00:0a:00:05:0c", "HOSTNAME": "web01",
        "ETH0_MASK": "255.255.255.0", "SSH_PUBLIC_KEY": None,
    }  # fmt: skip
    assert {key: context[key] for key in wanted} == wanted
    assert vm.TEMPLATE["FEATURES"]["GUEST_AGENT"] == "YES"
    assert vm.TEMPLATE["TOPOLOGY"]["PIN_POLICY"] == "NONE"
    assert vm.TEMPLATE["TEMPLATE_ID"] == "0"
    assert vm.USER_TEMPLATE == {"HYPERVISOR": "kvm", "MIG_KEY": "vc1/vm-42", "MIG_STATE": {"PHASE": "full", "RUN": "1"}}


def test_the_extra_template_replaces_by_name(site: Any, one: Any) -> None:
    site.image(one, "os"), site.image(one, "data")
    number = one.template.allocate(REALISTIC)
    extra = 'MEMORY=4096\nMIG_RUN="r1"\nNIC=[NETWORK_ID=0]\n'
    vm = one.vm.info(one.template.instantiate(number, "merged", True, extra, False))
    assert (vm.TEMPLATE["MEMORY"], vm.TEMPLATE["NIC"]["IP"]) == ("4096", "10.0.5.10")
    assert vm.USER_TEMPLATE["MIG_RUN"] == "r1"


def test_a_second_instance_finds_its_address_taken(site: Any, one: Any) -> None:
    site.image(one, "os"), site.image(one, "data")
    number = one.template.allocate(REALISTIC)
    one.template.instantiate(number, "first", True, "", False)
    text = f"{FAILED}Cannot get IP/MAC lease from virtual network 0.$"
    with pytest.raises(pyone.OneException, match=text):
        one.template.instantiate(number, "second", True, "", False)
    text = f"{FAILED}DISK 0: Cannot acquire image 0, it is persistent and already in use$"
    with pytest.raises(pyone.OneException, match=text):
        one.template.instantiate(number, "second", True, "NIC=[ ]\nOS=[ ]\n", False)


def test_a_disabled_or_locked_image_refuses_the_instance(site: Any, one: Any) -> None:
    site.image(one, "os"), site.image(one, "data")
    number = one.template.allocate(REALISTIC)
    one.image.enable(1, False)
    with pytest.raises(pyone.OneException, match=f"{FAILED}DISK 1: Cannot acquire image 1, it is in state: DISABLED$"):
        one.template.instantiate(number, "guarded", True, "", False)
    one.image.lock(0, 1)
    with pytest.raises(pyone.OneAuthorizationException, match=r"User \[0\] : IMAGE is locked. \[0\].$"):
        one.template.instantiate(number, "guarded", True, "", False)


def test_a_lease_lock_leaves_update_rename_and_instantiate(site: Any, one: Any) -> None:
    number = one.template.allocate("NAME=t\nCPU=1\nMEMORY=64\n")
    one.template.lock(number, 3, True)
    lock = one.template.info(number).LOCK
    with pytest.raises(pyone.OneActionException, match=rf"^\[one.template.lock\] {lock.TIME}$"):
        site.client().template.lock(number, 3, True)
    one.template.update(number, "TOKEN=x\n", 1)
    one.template.rename(number, "t2")
    one.template.instantiate(number, "vm", True, "", False)
    assert site.frontend.state()["locks"][0]["kind"] == "TEMPLATE"
    one.template.unlock(number)
    assert site.frontend.state()["locks"] == []
    one.template.lock(number, 1, True)
    with pytest.raises(pyone.OneAuthorizationException, match=r"TEMPLATE is locked. \[0\].$"):
        one.template.instantiate(number, "vm", True, "", False)


def test_only_the_owner_of_a_lock_or_an_administrator_opens_it(site: Any, one: Any) -> None:
    user = site.plain_user()
    number = user.template.allocate("NAME=t\nCPU=1\nMEMORY=64\n")
    one.template.lock(number, 3, True)
    with pytest.raises(pyone.OneActionException, match="Cannot unlock: Lock is owned by another user"):
        user.template.unlock(number)
    one.template.unlock(number)
    user.template.lock(number, 3, True)
    one.template.unlock(number)


def test_deleting_with_images_keeps_those_in_use(site: Any, one: Any) -> None:
    site.image(one, "free"), site.image(one, "used")
    site.machine(one, (1,))
    number = one.template.allocate("NAME=t\nCPU=1\nMEMORY=64\nDISK=[IMAGE_ID=0]\nDISK=[IMAGE_ID=1]\n")
    one.template.delete(number, True)
    with pytest.raises(pyone.OneNoExistsException, match=r"Error getting virtual machine template \[0\].$"):
        one.template.info(number)
    site.until(lambda: [it.NAME for it in one.imagepool.info(-2, -1, -1).IMAGE] == ["used"])
